#ifndef HOTLORA_SRC_SDXL_CONTROL_TYPES_H_
#define HOTLORA_SRC_SDXL_CONTROL_TYPES_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/timestep_embedding.h"
#include "src/sdxl/controlnet_config.h"

namespace hotlora {

// A control picture for one call of a net.
struct ControlHint {
  at::Tensor embedded;  // ControlNet::EmbedHint's, [1, channels, height, width]
  double scale = 1.0;
  int64_t type = 0;  // of a union net, below its count
};

// The network rows of one image, one behind the other, and the pictures that control them.
struct ControlledImage {
  int64_t rows = 1;  // under guidance 2: negative, then positive
  std::vector<ControlHint> hints;
};

// What makes a union net one: which of its control types a picture is, and how several pictures meet.
//
// A token stands for each picture, and a small transformer makes a shift of its hint from it. In the reference that
// transformer attends among the rows of the batch at each token, not among the tokens: its attention module expects
// [tokens, rows, width] and gets [rows, tokens, width], and published nets are used so. The rows of one image have the
// same pictures, so what is attended to is the same everywhere, and attention gives the value itself whatever the
// queries, keys and heads. Rows of other images have no part in it.
//
// Several pictures are scaled here, each with its token and its shift. A single one is not: its scale is for the net's
// outputs.
//
// Threads  const
// Source   diffusers models/controlnets/controlnet_union.py
class ControlTypes {
 public:
  ControlTypes() = default;
  // `width`: the channels of the entry convolution. `sinusoid_width`: of each type's sinusoid.
  ControlTypes(const ParameterScope& scope, const ControlTypesConfig& config, int64_t width, int64_t sinusoid_width,
               int64_t time_width);

  // What the types of each row's pictures add to its time embedding: [rows, time width]. `sinusoids` takes [n] to
  // [n, sinusoid_width].
  at::Tensor EmbedTypes(c10::ArrayRef<ControlledImage> images, const SinusoidEmbedding& sinusoids) const;

  // What the pictures of one image add to the entry convolution of each of its rows: [1, width, height, width].
  at::Tensor Fuse(c10::ArrayRef<ControlHint> hints) const;

 private:
  struct Layer {
    Layer(const ParameterScope& scope, int64_t width);
    at::Tensor forward(at::Tensor x) const;

    LayerNorm ln_1, ln_2;
    Linear value_proj, out_proj, c_fc, c_proj;
  };

  ControlTypesConfig config_;
  TimestepEmbedding control_add_embedding_;
  at::Tensor task_embedding_;  // [types, width]
  std::vector<Layer> layers_;
  Linear spatial_ch_projs_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CONTROL_TYPES_H_
