#ifndef HOTLORA_SRC_IMAGE_MIDDLE_SQUARE_H_
#define HOTLORA_SRC_IMAGE_MIDDLE_SQUARE_H_

#include <cstdint>

namespace hotlora {

// The middle of a picture whose shorter side was brought to `edge`: a square of `side`. 0 < side <= edge.
struct MiddleSquare {
  uint32_t edge = 0, side = 0;

  friend bool operator==(MiddleSquare a, MiddleSquare b) { return a.edge == b.edge && a.side == b.side; }
  friend bool operator!=(MiddleSquare a, MiddleSquare b) { return !(a == b); }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_IMAGE_MIDDLE_SQUARE_H_
