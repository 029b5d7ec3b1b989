// Runs a fuzz target without libFuzzer: over files as they are, then over random mutations of them.
//
//   fuzz_adapter [-runs=N] [-seed=N] [-max_cpu_seconds=S] FILE_OR_FOLDER...
//
// Beside what the target itself checks, each input may take S seconds of processor time (default 1), and mutations may
// not leave memory allocated behind. The input that fails goes to the file fuzz_adapter.crash in the current folder.
// The same seed gives the same inputs.

#include <time.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/base/config.h"

#if defined(ABSL_HAVE_ADDRESS_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

#include "tests/fuzz/byte_mutator.h"
#include "tests/fuzz/live_bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Targets may have one, as with libFuzzer: a change that keeps most of the input's structure.
extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                                                unsigned int seed);

namespace {

using hotlora::ByteMutator;
using hotlora::Bytes;

constexpr uintmax_t kMaxSeedBytes = 1 << 18;
constexpr size_t kMaxInputBytes = 1 << 20;

struct Arguments {
  uint64_t runs = 0, seed = 1;
  double max_cpu_seconds = 1;
  std::vector<Bytes> seeds;
};

std::string crash_file;
const Bytes* running = nullptr;
ByteMutator* byte_mutator = nullptr;

void KeepInput() {
  if (running != nullptr) {
    std::ofstream(crash_file, std::ios::binary)
        .write(reinterpret_cast<const char*>(running->data()), static_cast<std::streamsize>(running->size()));
    std::fprintf(stderr, "the input is in %s\n", crash_file.c_str());
  }
}

[[noreturn]] void OnSignal(int number) {
  KeepInput();
  std::signal(number, SIG_DFL);
  std::raise(number);
  std::_Exit(1);
}

void KeepInputOfCrash() {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER)
  __sanitizer_set_death_callback(KeepInput);  // all signals but that of abort() end there
#else
  std::signal(SIGSEGV, OnSignal);
  std::signal(SIGFPE, OnSignal);
#endif
  std::signal(SIGABRT, OnSignal);
}

void AddSeed(const std::filesystem::path& path, std::vector<Bytes>& seeds) {
  if (!std::filesystem::is_regular_file(path) || std::filesystem::file_size(path) > kMaxSeedBytes) {
    return;
  }
  std::ifstream stream(path, std::ios::binary);
  seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

Arguments Read(int argc, char** argv) {
  Arguments read;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    const std::string name = argument.substr(0, equals);
    if (name == "-runs") {
      read.runs = std::stoull(argument.substr(equals + 1));
    } else if (name == "-seed") {
      read.seed = std::stoull(argument.substr(equals + 1));
    } else if (name == "-max_cpu_seconds") {
      read.max_cpu_seconds = std::stod(argument.substr(equals + 1));
    } else if (std::filesystem::is_directory(argument)) {
      std::vector<std::filesystem::path> paths;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument)) {
        paths.push_back(entry.path());
      }
      std::sort(paths.begin(), paths.end());  // the same seeds give the same runs
      for (const std::filesystem::path& path : paths) {
        AddSeed(path, read.seeds);
      }
    } else {
      AddSeed(argument, read.seeds);
    }
  }
  return read;
}

// By the target's own mutator, which works in place.
Bytes MutatedByTarget(ByteMutator& mutator, size_t count) {
  static Bytes buffer(kMaxInputBytes);
  const Bytes& from = mutator.Pick();
  std::copy(from.begin(), from.end(), buffer.begin());
  size_t size = from.size();
  for (; count > 0; --count) {
    size = LLVMFuzzerCustomMutator(buffer.data(), size, buffer.size(),
                                   static_cast<unsigned int>(mutator.Below(size_t{1} << 32)));
  }
  return {buffer.begin(), buffer.begin() + size};
}

Bytes Mutated(ByteMutator& mutator) {
  size_t count = 1 + mutator.Below(4);
  if (LLVMFuzzerCustomMutator != nullptr) {
    return MutatedByTarget(mutator, count);
  }
  Bytes bytes = mutator.Pick();
  for (; count > 0; --count) {
    mutator.Mutate(bytes);
  }
  bytes.resize(std::min(bytes.size(), kMaxInputBytes));
  return bytes;
}

// The processor time that the target took, in seconds.
double Run(const Bytes& bytes) {
  const auto now = [] {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  running = &bytes;
  const double begin = now();
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  return now() - begin;
}

// Runs the seeds and the mutations; whether all stayed within time and memory.
bool RunAll(const Arguments& arguments) {
  ByteMutator mutator(arguments.seeds, arguments.seed);
  byte_mutator = &mutator;
  double slowest = 0;
  const auto run = [&](const Bytes& bytes) {
    slowest = std::max(slowest, Run(bytes));
    if (slowest > arguments.max_cpu_seconds) {
      std::fprintf(stderr, "an input takes %.2f s of processor time; allowed are %.2f\n", slowest,
                   arguments.max_cpu_seconds);
      KeepInput();
      return false;
    }
    return true;
  };
  if (!std::all_of(arguments.seeds.begin(), arguments.seeds.end(), run)) {
    return false;
  }
  uint64_t live_at_first = 0;
  for (uint64_t i = 0; i < arguments.runs; ++i) {
    if (i == arguments.runs / 4) {  // what is made once is made by then
      live_at_first = hotlora::LiveBytes();
    }
    if (!run(Mutated(mutator))) {
      return false;
    }
  }
  const uint64_t live = hotlora::LiveBytes();
  if (arguments.runs > 0 && live > live_at_first + hotlora::kLiveBytesSlack) {
    std::fprintf(stderr, "memory grows: %llu bytes after a quarter of the mutations, %llu after all\n",
                 static_cast<unsigned long long>(live_at_first), static_cast<unsigned long long>(live));
    return false;
  }
  std::printf("%zu seeds and %llu mutations; the slowest took %.3f s of processor time, memory grew by %lld bytes\n",
              arguments.seeds.size(), static_cast<unsigned long long>(arguments.runs), slowest,
              arguments.runs == 0 ? 0 : static_cast<long long>(live - live_at_first));
  return true;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  Bytes bytes(data, data + size);
  byte_mutator->Mutate(bytes);
  bytes.resize(std::min(bytes.size(), max_size));
  std::copy(bytes.begin(), bytes.end(), data);
  return bytes.size();
}

int main(int argc, char** argv) {
  const Arguments arguments = Read(argc, argv);
  if (arguments.seeds.empty()) {
    std::fprintf(stderr, "no seed files\n");
    return 2;
  }
  crash_file = std::filesystem::path(argv[0]).filename().string() + ".crash";
  KeepInputOfCrash();
  return RunAll(arguments) ? 0 : 1;
}
