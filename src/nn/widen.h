#ifndef HOTLORA_SRC_NN_WIDEN_H_
#define HOTLORA_SRC_NN_WIDEN_H_

// Half types (as bits) to float32, exactly, and back, to the nearest value, ties to even. NaN stays NaN. At the
// memory's speed if the CPU has AVX2 and F16C.

#include <cstdint>
#include <cstring>

#include "src/nn/fused_tile.h"

namespace hotlora {

// Without a branch, so that loops over it become vector instructions.
HOTLORA_TILE_INLINE uint16_t Bfloat16Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? 0x7FC0U : rounded);
}

void WidenHalf(const uint16_t* from, float* to, int64_t count);
void WidenBfloat16(const uint16_t* from, float* to, int64_t count);

void NarrowToHalf(const float* from, uint16_t* to, int64_t count);
void NarrowToBfloat16(const float* from, uint16_t* to, int64_t count);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_WIDEN_H_
