// Makes Debian's Abseil visible to ThreadSanitizer, which it was built without: without this every
// absl::Mutex looks like no lock at all. A test program that compiles this file gets its own
// Mutex::Lock and so on, which call Abseil's and tell the sanitizer who waited for whom. Does
// nothing in other builds.

#if defined(__SANITIZE_THREAD__)

#include <dlfcn.h>
#include <stdlib.h>

extern "C" {
void __tsan_acquire(void* address);
void __tsan_release(void* address);
// Weak: a program may have settings of its own.
__attribute__((weak)) const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }
// Conditions are called by the thread that unlocks, inside Abseil and under the lock.
__attribute__((weak)) const char* __tsan_default_suppressions() {
  return "race:absl::debian3::Condition::\nrace:CastAndCall";
}
}

namespace {

template <typename Function>
Function* Real(const char* name) {
  void* const found = dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    abort();
  }
  return reinterpret_cast<Function*>(found);
}

}  // namespace

// A member function `name` without arguments; BEFORE and AFTER tell the sanitizer about the object.
#define HOTLORA_WRAP(function, name, BEFORE, AFTER)     \
  extern "C" void function(void* object) __asm__(name); \
  extern "C" void function(void* object) {              \
    static auto* const real = Real<void(void*)>(name);  \
    BEFORE(object);                                     \
    real(object);                                       \
    AFTER(object);                                      \
  }
#define HOTLORA_NOTHING(object)

HOTLORA_WRAP(HotloraLock, "_ZN4absl7debian35Mutex4LockEv", HOTLORA_NOTHING, __tsan_acquire)
HOTLORA_WRAP(HotloraUnlock, "_ZN4absl7debian35Mutex6UnlockEv", __tsan_release, HOTLORA_NOTHING)
HOTLORA_WRAP(HotloraNotify, "_ZN4absl7debian312Notification6NotifyEv", __tsan_release, HOTLORA_NOTHING)
HOTLORA_WRAP(HotloraWait, "_ZNK4absl7debian312Notification19WaitForNotificationEv", HOTLORA_NOTHING, __tsan_acquire)

// Gives the lock up while it waits.
extern "C" void HotloraAwait(void* mutex,
                             const void* condition) __asm__("_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
extern "C" void HotloraAwait(void* mutex, const void* condition) {
  static auto* const real = Real<void(void*, const void*)>("_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE");
  __tsan_release(mutex);
  real(mutex, condition);
  __tsan_acquire(mutex);
}

extern "C" void HotloraCondVarWait(void* changed, void* mutex) __asm__("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
extern "C" void HotloraCondVarWait(void* changed, void* mutex) {
  static auto* const real = Real<void(void*, void*)>("_ZN4absl7debian37CondVar4WaitEPNS0_5MutexE");
  __tsan_release(mutex);
  real(changed, mutex);
  __tsan_acquire(mutex);
}

// The same as HotloraAwait with a time limit; absl::Duration is passed as these two numbers.
struct HotloraDuration {
  long long high;  // NOLINT(google-runtime-int): as in absl/time/time.h
  unsigned low;
};
extern "C" bool HotloraAwaitWithTimeout(void* mutex, const void* condition, HotloraDuration timeout) __asm__(
    "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
extern "C" bool HotloraAwaitWithTimeout(void* mutex, const void* condition, HotloraDuration timeout) {
  static auto* const real = Real<bool(void*, const void*, HotloraDuration)>(
      "_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE");
  __tsan_release(mutex);
  const bool met = real(mutex, condition, timeout);
  __tsan_acquire(mutex);
  return met;
}

#endif  // defined(__SANITIZE_THREAD__)
