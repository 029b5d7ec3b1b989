#ifndef HOTLORA_SRC_TENSOR_THREADS_FOR_H_
#define HOTLORA_SRC_TENSOR_THREADS_FOR_H_

#include <cstdint>

namespace hotlora {

// So many values of an elementwise loop are worth a thread of their own: the grain of ParallelFor.
inline constexpr int64_t kValuesWorthSharing = 32768;

// While it lives, LibTorch's operators on the CPU and ParallelFor use only the calling thread if `multiply_adds` are
// too few to share: to wake another thread takes longer than to do its part. The choice depends on the work alone and
// not on measured times, so that equal requests give equal pictures.
//
// Threads  concerns the calling one alone; scopes may nest, and an inner one never adds threads
class ThreadsFor {
 public:
  explicit ThreadsFor(double multiply_adds);
  ~ThreadsFor();
  ThreadsFor(const ThreadsFor&) = delete;
  ThreadsFor& operator=(const ThreadsFor&) = delete;

 private:
  int before_ = 0;      // the number of threads to go back to; 0: it was not changed
  int mkl_before_ = 0;  // MKL's own, if before_ is not 0
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_THREADS_FOR_H_
