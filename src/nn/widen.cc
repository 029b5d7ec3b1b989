#include "src/nn/widen.h"

#include <c10/util/Half.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hotlora {
namespace {

void WidenOneByOne(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = c10::detail::fp16_ieee_to_fp32_value(from[i]);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) int64_t WidenEights(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  return i;
}
#endif

}  // namespace

void WidenHalf(const uint16_t* from, float* to, int64_t count) {
  int64_t done = 0;
#if defined(__x86_64__)
  static const bool has_f16c = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  if (has_f16c) {
    done = WidenEights(from, to, count);
  }
#endif
  WidenOneByOne(from + done, to + done, count - done);
}

}  // namespace hotlora
