#ifndef HOTLORA_TESTS_FUZZ_LIVE_BYTES_H_
#define HOTLORA_TESTS_FUZZ_LIVE_BYTES_H_

#include <malloc.h>

#include <cstdint>

#include "absl/base/config.h"

#if defined(ABSL_HAVE_ADDRESS_SANITIZER)
#include <sanitizer/allocator_interface.h>
#endif

namespace hotlora {

// How exact LiveBytes is: the C library counts what each thread keeps for its next allocations as in use.
inline constexpr uint64_t kLiveBytesSlack = 256 * 1024;

// Bytes that are allocated now and not freed.
inline uint64_t LiveBytes() {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER)
  return __sanitizer_get_current_allocated_bytes();
#else
  const struct mallinfo2 figures = mallinfo2();
  return figures.uordblks + figures.hblkhd;
#endif
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FUZZ_LIVE_BYTES_H_
