#ifndef HOTLORA_SRC_SDXL_UNET_H_
#define HOTLORA_SRC_SDXL_UNET_H_

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resample.h"
#include "src/nn/resnet_block.h"
#include "src/nn/transformer_2d.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/unet_encoder.h"

namespace hotlora {

// SDXL's UNet: predicts the noise (or velocity) in a latent.
//
// Layout   channels_last inside, so that pixels become tokens without a copy
// Threads  const
// Source   Podell et al. 2023, arXiv 2307.01952; diffusers models/unets/unet_2d_condition.py
class Unet {
 public:
  Unet(const ParameterScope& scope, const UnetConfig& config);

  // The prediction under the adapters that are merged into the weights and those of `side`, with the control and the
  // image prompts of `step`: [rows, out_channels, height, width], contiguous, in the network's dtype. Any height and
  // width. Errors: throws c10::Error if shapes disagree (a caller's bug).
  at::Tensor Predict(const UnetStep& step, const StageTap& tap = {}, SideBranch side = {}) const;

  // The keys and values of the text in every cross attention, in the order in which they run: [rows, tokens, 2 * its
  // width] each, together text_width() values a token.
  std::vector<at::Tensor> ProjectText(const at::Tensor& encoder_hidden_states, SideBranch side = {}) const;

  // What every resnet block, in the order in which they run, adds for time, size and pooled text: [rows, shift_width].
  // Rows, dtypes and arguments as UnetInput's; all rows of a text's evaluations may be given at once.
  at::Tensor ProjectTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                         SideBranch side = {}, const StageTap& tap = {}) const;

  // Both projections of one input.
  UnetStep Project(const UnetInput& input, const StageTap& tap = {}, SideBranch side = {}) const;

  // Predict after Project.
  at::Tensor forward(const UnetInput& input, const StageTap& tap = {}, SideBranch side = {}) const;

  int64_t text_width() const;

  const UnetConfig& config() const { return config_; }

 private:
  struct UpBlock {
    std::vector<ResnetBlock> resnets;
    std::vector<Transformer2d> attentions;
    std::optional<Upsample2d> upsampler;
  };

  UpBlock MakeUpBlock(const ParameterScope& scope, size_t level) const;

  // Calls what is given for each block of its kind, in the order in which Predict runs them.
  template <typename Call>
  void ForResnets(const Call& call) const;
  template <typename Call>
  void ForAttentions(const Call& call) const;

  UnetConfig config_;
  UnetEncoder encoder_;
  std::vector<UpBlock> up_blocks_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_UNET_H_
