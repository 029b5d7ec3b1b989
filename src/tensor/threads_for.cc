#include "src/tensor/threads_for.h"

#include <ATen/Parallel.h>

#ifdef _OPENMP
#include <omp.h>
#elif defined(__GNUC__) && !defined(__clang__)
#error "compile this file with -fopenmp: without it, it has no say in the number of threads"
#endif

// MKL has no headers in LibTorch's package, and LibTorch has no MKL on some processors: then this is null. It sets the
// calling thread's number, 0 for none of its own, and returns the one before.
extern "C" __attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);

namespace hotlora {
namespace {

int SetMklThreads(int threads) { return MKL_Set_Num_Threads_Local == nullptr ? 0 : MKL_Set_Num_Threads_Local(threads); }

// Measured 2026-11-28 on a virtual machine with two CPUs of an AMD EPYC (Zen 4), whose threads spin between operators
// (src/base/thread_team.h): a step of the demo model with limits of 0.25, 1 and 2 millions took 0.91, 0.93 and 0.94 of
// the time with 8 millions at 128x128 in float32, and 0.88, 0.85 and 0.96 at 256x256 in bfloat16. While threads do not
// spin (an image is decoded beside, or a container has a quota), waking one takes some 50 us: there a step at 128x128
// in float32 took 23 ms with 1 million, 20 with 4, and 18 with 16. Networks of SDXL's size have few products so small.
constexpr double kWorthSharing = 1e6;

}  // namespace

// LibTorch and oneDNN ask OpenMP for the calling thread's number of threads. MKL does too, unless at::set_num_threads
// gave it a number of its own. at::set_num_threads is not used here, because it also sets the number that new threads
// begin with.
ThreadsFor::ThreadsFor(double multiply_adds) {
#ifdef _OPENMP
  if (multiply_adds < kWorthSharing) {
    // LibTorch sets a thread's number when it is first asked for it, once by its own code and once by code of its
    // headers: after that, it leaves the number alone.
    at::internal::lazy_init_num_threads();
    if (const int threads = at::get_num_threads(); threads > 1) {
      before_ = threads;
      mkl_before_ = SetMklThreads(1);
      omp_set_num_threads(1);
    }
  }
#endif
}

ThreadsFor::~ThreadsFor() {
#ifdef _OPENMP
  if (before_ > 0) {
    omp_set_num_threads(before_);
    SetMklThreads(mkl_before_);
  }
#endif
}

}  // namespace hotlora
