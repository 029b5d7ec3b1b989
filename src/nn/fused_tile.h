#ifndef HOTLORA_SRC_NN_FUSED_TILE_H_
#define HOTLORA_SRC_NN_FUSED_TILE_H_

// The arithmetic of the fused operators (fused_ops.h) for one value, in float32: straight-line code without library
// calls, so that a compiler makes vector instructions of it on any CPU, and a CUDA kernel can use it as it is.

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HOTLORA_TILE_INLINE __host__ __device__ __forceinline__
#else
#define HOTLORA_TILE_INLINE inline __attribute__((always_inline))
#endif

namespace hotlora {

struct FusedTile {
  // e^x within 2 units in the last place for x from -80 to 88, and the values of these two beyond. So products of small
  // results stay normal numbers, which CPUs multiply fast. NaN stays NaN.
  // Source   Cephes, expf: x = n ln 2 + r, and a polynomial for e^r
  HOTLORA_TILE_INLINE static float Exp(float x) {
    constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
    x = x < -80.0F ? -80.0F : x;
    x = x > 88.0F ? 88.0F : x;
    const float shifted = x * 1.44269504F + kRound;
    const float n = shifted - kRound;
    const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    return p * FromBits((Bits(shifted) - Bits(kRound) + 127U) << 23);
  }

  // x * sigmoid(x).
  HOTLORA_TILE_INLINE static float Silu(float x) { return x / (1.0F + Exp(-x)); }

  // x * Phi(x), the exact GELU: the error function within 1.5e-7.
  // Source   Abramowitz and Stegun 1964, formula 7.1.26, which is ATen's too in vector instructions
  HOTLORA_TILE_INLINE static float Gelu(float x) {
    const float z = x * 0.70710678F;
    const float magnitude = z < 0.0F ? -z : z;
    const float t = 1.0F / (1.0F + 0.3275911F * magnitude);
    float p = 1.061405429F;
    p = p * t - 1.453152027F;
    p = p * t + 1.421413741F;
    p = p * t - 0.284496736F;
    p = p * t + 0.254829592F;
    const float tail = p * t * Exp(-z * z);  // 1 - erf(|z|)
    return 0.5F * x * (z < 0.0F ? tail : 2.0F - tail);
  }

 private:
  HOTLORA_TILE_INLINE static uint32_t Bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
  }
  HOTLORA_TILE_INLINE static float FromBits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
  }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_FUSED_TILE_H_
