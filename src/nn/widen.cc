#include "src/nn/widen.h"

#include <cstring>

#include <c10/util/Half.h>

#include "src/nn/vector_levels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hotlora {
namespace {

// The compiler makes no vector instructions of conversions from and to float16. Both return how many values are done.
#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) int64_t WidenEights(const uint16_t* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  return i;
}

__attribute__((target("avx,f16c"))) int64_t NarrowEights(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
  }
  return i;
}

bool HasF16c() {
  static const bool has_f16c = __builtin_cpu_supports("avx") && __builtin_cpu_supports("f16c");
  return has_f16c;
}
#else
int64_t WidenEights(const uint16_t*, float*, int64_t) { return 0; }
int64_t NarrowEights(const float*, uint16_t*, int64_t) { return 0; }
bool HasF16c() { return false; }
#endif

}  // namespace

void WidenHalf(const uint16_t* from, float* to, int64_t count) {
  for (int64_t i = HasF16c() ? WidenEights(from, to, count) : 0; i < count; ++i) {
    to[i] = c10::detail::fp16_ieee_to_fp32_value(from[i]);
  }
}

void NarrowToHalf(const float* from, uint16_t* to, int64_t count) {
  for (int64_t i = HasF16c() ? NarrowEights(from, to, count) : 0; i < count; ++i) {
    to[i] = c10::detail::fp16_ieee_from_fp32_value(from[i]);
  }
}

HOTLORA_VECTOR_LEVELS
void WidenBfloat16(const uint16_t* __restrict from, float* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
    std::memcpy(to + i, &bits, sizeof(bits));
  }
}

HOTLORA_VECTOR_LEVELS
void NarrowToBfloat16(const float* __restrict from, uint16_t* __restrict to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    to[i] = Bfloat16Bits(from[i]);
  }
}

}  // namespace hotlora
