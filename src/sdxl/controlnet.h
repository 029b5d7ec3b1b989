#ifndef HOTLORA_SRC_SDXL_CONTROLNET_H_
#define HOTLORA_SRC_SDXL_CONTROLNET_H_

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/conv2d.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/control_types.h"
#include "src/sdxl/controlnet_config.h"
#include "src/sdxl/unet_encoder.h"

namespace hotlora {

// A ControlNet for SDXL: a copy of the UNet's first half that also sees a control picture, and says what to add to the
// UNet's skip connections and middle block. A union net knows several kinds of control picture.
//
// Threads  const
// Source   Zhang et al. 2023, arXiv 2302.05543; diffusers models/controlnets/controlnet.py, controlnet_union.py
class ControlNet {
 public:
  ControlNet(const ParameterScope& scope, const ControlNetConfig& config);

  // What forward takes of a control picture, the same in every step.
  //
  // Shapes   picture [n, 3, height, width], RGB from 0 to 1, of the size of the image to make; result [n, channels,
  //          height / factor, width / factor]
  // Dtypes   the network's
  at::Tensor EmbedHint(const at::Tensor& picture) const;

  // The residuals of all rows of `input`, which are those of `images` in their order, times the pictures' scales.
  // Each image has one picture; of a union net one or more. Throws c10::Error if shapes or counts disagree, or a type
  // is not below the net's count (a caller's bug). REQUIRES: input has no control and no image prompts, since neither
  // reaches a net.
  ControlResiduals forward(const UnetInput& input, c10::ArrayRef<ControlledImage> images) const;

  const ControlNetConfig& config() const { return config_; }

 private:
  // The entry convolution of the sample with the pictures of each row added.
  at::Tensor EnterWithHints(const UnetInput& input, c10::ArrayRef<ControlledImage> images) const;

  ControlNetConfig config_;
  UnetEncoder encoder_;
  std::vector<Conv2d> hint_convolutions_;
  std::optional<ControlTypes> types_;
  std::vector<Conv2d> down_projections_;  // controlnet_down_blocks, one for each skip connection
  Conv2d mid_projection_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONTROLNET_H_
