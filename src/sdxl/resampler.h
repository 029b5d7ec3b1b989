#ifndef HOTLORA_SRC_SDXL_RESAMPLER_H_
#define HOTLORA_SRC_SDXL_RESAMPLER_H_

#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/image_prompt_config.h"

namespace hotlora {

// Learnt queries that look at an image encoder's tokens, and become the tokens of an image prompt.
//
// Shapes   x [n, any, encoder_width]; y [n, tokens, context_width]
// Threads  const
// Source   Alayrac et al. 2022, arXiv 2204.14198, section 3.1.1 (Perceiver resampler); IP-Adapter's resampler.py
class Resampler {
 public:
  Resampler() = default;
  Resampler(const ParameterScope& scope, const ImagePromptConfig& config);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  struct Layer {
    Layer(const ParameterScope& scope, const ImagePromptConfig& config);
    // `latents` after the layer, which looks at `x` and at them.
    at::Tensor forward(const at::Tensor& x, const at::Tensor& latents) const;

    LayerNorm norm_x, norm_latents, norm_inner;
    Linear to_q, to_kv, to_out, project_in, project_out;
  };

  at::Tensor latents_;  // [1, tokens, width]
  Linear proj_in_, proj_out_;
  LayerNorm norm_out_;
  std::vector<Layer> layers_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_RESAMPLER_H_
