#ifndef HOTLORA_TESTS_FAULTS_FAULT_POINTS_H_
#define HOTLORA_TESTS_FAULTS_FAULT_POINTS_H_

// Where hotlora-faulty-server can fail, and how a test tells it to. The two share the file that HOTLORA_TEST_FAULTS
// names as memory, so that a point costs no call into the kernel and its number is exact; faults.py is the other side.
// Without that variable nothing ever fails.

#include <cstdint>

namespace hotlora::faults {

// Kinds of points. The order is that of faults.py.
enum class Kind { kTensor, kBuffer, kMap, kKernel, kOpen, kRead, kWrite, kSync, kRename, kUnlink, kStat };
constexpr int kKinds = 11;

// What happens at a point; a positive number is the errno that a call fails with.
constexpr int64_t kNothing = 0;
constexpr int64_t kShort = -1;         // a read or write of half the bytes
constexpr int64_t kEnd = -2;           // a read that finds the end of the file
constexpr int64_t kTorchError = -3;    // c10::Error
constexpr int64_t kRuntimeError = -4;  // std::runtime_error
constexpr int64_t kNoMemory = -5;      // std::bad_alloc
constexpr int64_t kNan = -6;           // the result is NaN
// At a point of any kind, which then goes on as if nothing had been.
constexpr int64_t kStuck = -7;      // two seconds
constexpr int64_t kLeak = -8;       // 4 KiB of the tensor allocator's
constexpr int64_t kHourOn = -9;     // the system's clock is set forward
constexpr int64_t kHourBack = -10;  // and back

// Counts a point; what is to happen there. Thread-safe.
int64_t Pass(Kind kind);

// Pass, and for what is not a call of the system: throws what is to be thrown. True if the result is to be NaN.
bool PassKernel();

// The rest of what the file says, each 0 if it says nothing.
struct Settings {
  int64_t clock_nanoseconds;             // by which the system's clock is ahead
  int64_t leaked_tensor_bytes_a_swap;    // each swap leaks a tensor of that size,
  int64_t leaked_heap_bytes_a_swap;      // or plain memory
  int64_t slower_nanoseconds_each_swap;  // each swap takes so much longer than the one before
};
Settings CurrentSettings();

}  // namespace hotlora::faults

#endif  // HOTLORA_TESTS_FAULTS_FAULT_POINTS_H_
