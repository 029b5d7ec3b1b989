#include "tests/fakes/sim_device/crash_stack.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "tests/fakes/sim_device/device_memory.h"

namespace hotlora {
namespace {

struct sigaction before {};

void Print(std::string_view text) { static_cast<void>(!write(STDERR_FILENO, text.data(), text.size())); }

// Returns to the faulting instruction, which faults again, as the handler before this one handles it.
void OnFault(int signal, siginfo_t* fault, void* context) {
  const c10::DeviceIndex owner = DeviceMemory::OwnerOf(fault->si_addr);
  if (owner >= 0) {
    Print(owner == 0 ? "the host touched sim:0's memory:\n" : "the host touched sim:1's memory:\n");
    std::array<void*, 64> frames{};
    backtrace_symbols_fd(frames.data(), backtrace(frames.data(), frames.size()), STDERR_FILENO);
  }
  sigaction(SIGSEGV, &before, nullptr);
}

}  // namespace

void PrintStackOfCrashes() {
  DeviceMemory::Of(0);  // a handler cannot map it
  std::array<void*, 1> frame{};
  backtrace(frame.data(), frame.size());  // the first call loads a library, which a handler must not
  struct sigaction action {};
  action.sa_sigaction = &OnFault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, &before);
}

}  // namespace hotlora
