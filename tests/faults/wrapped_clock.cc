// The system's clock for the whole process, shared libraries included: these functions stand in the program, so they
// come before the C library's. A wait for a time of that clock (futex, as absl::Mutex has it) ends when the clock that
// was set says so, as in the kernel.

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <cstdint>

#include <linux/futex.h>

#include "tests/faults/fault_points.h"

namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kPiece = kSecond / 50;  // a clock that is set is noticed after so long

int64_t Nanoseconds(const timespec& time) { return time.tv_sec * kSecond + time.tv_nsec; }

timespec TimeOf(int64_t nanoseconds) { return {nanoseconds / kSecond, nanoseconds % kSecond}; }

template <typename Function>
Function* TheNext(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int TrueClock(clockid_t clock, timespec* time) {
  static auto* const next = TheNext<int(clockid_t, timespec*)>("clock_gettime");
  return next(clock, time);
}

bool IsTimedByTheClock(const long (&words)[6]) {
  constexpr long kWait = FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME;
  return (words[1] & ~FUTEX_PRIVATE_FLAG) == kWait && words[3] != 0;
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const int result = TrueClock(clock, time);
  if (result == 0 && clock == CLOCK_REALTIME) {
    *time = TimeOf(Nanoseconds(*time) + hotlora::faults::CurrentSettings().clock_nanoseconds);
  }
  return result;
}

extern "C" long syscall(long number, ...) noexcept {
  static auto* const next = TheNext<long(long, ...)>("syscall");
  long words[6];
  va_list list;
  va_start(list, number);
  for (long& word : words) {
    word = va_arg(list, long);
  }
  va_end(list);
  if (number == SYS_openat2) {
    const int64_t action = hotlora::faults::Pass(hotlora::faults::Kind::kOpen);
    if (action > 0) {
      errno = static_cast<int>(action);
      return -1;
    }
  }
  if (number != SYS_futex || !IsTimedByTheClock(words)) {
    return next(number, words[0], words[1], words[2], words[3], words[4], words[5]);
  }
  const int64_t end = Nanoseconds(*reinterpret_cast<const timespec*>(words[3]));
  while (true) {
    timespec now;
    TrueClock(CLOCK_REALTIME, &now);
    const int64_t left = end - Nanoseconds(now) - hotlora::faults::CurrentSettings().clock_nanoseconds;
    const timespec until = TimeOf(Nanoseconds(now) + std::clamp<int64_t>(left, 0, kPiece));
    const long result = next(number, words[0], words[1], words[2], reinterpret_cast<long>(&until), words[4], words[5]);
    if (result == 0 || errno != ETIMEDOUT || left <= 0) {
      return result;
    }
  }
}
