#ifndef HOTLORA_SRC_NN_WIDEN_H_
#define HOTLORA_SRC_NN_WIDEN_H_

#include <cstdint>

namespace hotlora {

// float16 (as bits) to float32, exactly. At the memory's speed if the CPU has F16C.
void WidenHalf(const uint16_t* from, float* to, int64_t count);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_WIDEN_H_
