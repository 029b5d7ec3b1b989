#ifndef HOTLORA_SRC_SDXL_UNET_H_
#define HOTLORA_SRC_SDXL_UNET_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/nn/conv2d.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resample.h"
#include "src/nn/resnet_block.h"
#include "src/nn/timestep_embedding.h"
#include "src/nn/transformer_2d.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

// All that one call of the network depends on. Rows are independent: each may be at its own timestep, for its own
// prompt and size.
struct UnetInput {
  at::Tensor sample;                 // [rows, in_channels, height, width], the network's dtype
  at::Tensor timesteps;              // [rows], float32, fractions allowed
  at::Tensor encoder_hidden_states;  // [rows, tokens, cross-attention width], the network's dtype
  at::Tensor pooled;                 // [rows, pooled width], the network's dtype
  at::Tensor time_ids;               // [rows, 6], float32: sizes above 2048 do not fit half types
};

// What a step takes of it: the latents, and what the network made of the rest before. That can serve many steps, since
// it does not depend on the latents. It depends on the adapters in effect, and must be made again if they change.
struct UnetStep {
  at::Tensor sample;             // as UnetInput's
  at::Tensor shifts;             // [rows, shift_width]: ProjectTime; each row contiguous
  std::vector<at::Tensor> text;  // ProjectText
};

// SDXL's UNet: predicts the noise (or velocity) in a latent.
//
// Layout   channels_last inside, so that pixels become tokens without a copy
// Threads  const
// Source   Podell et al. 2023, arXiv 2307.01952; diffusers models/unets/unet_2d_condition.py
class Unet {
 public:
  // Called with the name of each stage and what it put out ("down_blocks.1"): for tests that look
  // inside.
  using Tap = std::function<void(const std::string& stage, const at::Tensor& output)>;

  Unet(const ParameterScope& scope, const UnetConfig& config);

  // The prediction under the adapters that are merged into the weights and those of `side`: [rows, out_channels,
  // height, width], contiguous, in the network's dtype. Any height and width. Errors: throws c10::Error if shapes
  // disagree (a caller's bug).
  at::Tensor Predict(const UnetStep& step, const Tap& tap = {}, SideBranch side = {}) const;

  // The keys and values of the text in every cross attention, in the order in which they run: [rows, tokens, 2 * its
  // width] each, together text_width() values a token.
  std::vector<at::Tensor> ProjectText(const at::Tensor& encoder_hidden_states, SideBranch side = {}) const;

  // What every resnet block, in the order in which they run, adds for time, size and pooled text: [rows, shift_width].
  // Rows, dtypes and arguments as UnetInput's; all rows of a text's evaluations may be given at once.
  at::Tensor ProjectTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                         SideBranch side = {}, const Tap& tap = {}) const;

  // Predict of one input, with both projections before it.
  at::Tensor forward(const UnetInput& input, const Tap& tap = {}, SideBranch side = {}) const;

  int64_t text_width() const;

  const UnetConfig& config() const { return config_; }

 private:
  struct DownBlock {
    std::vector<ResnetBlock> resnets;
    std::vector<Transformer2d> attentions;  // empty, or one after each resnet
    std::optional<Downsample2d> downsampler;
  };
  struct MidBlock {
    ResnetBlock first, second;
    Transformer2d attention;
  };
  struct UpBlock {
    std::vector<ResnetBlock> resnets;
    std::vector<Transformer2d> attentions;
    std::optional<Upsample2d> upsampler;
  };

  DownBlock MakeDownBlock(const ParameterScope& scope, size_t level) const;
  MidBlock MakeMidBlock(const ParameterScope& scope) const;
  UpBlock MakeUpBlock(const ParameterScope& scope, size_t level) const;
  ResnetBlock MakeResnet(const ParameterScope& scope, int64_t in, int64_t out) const;
  Transformer2d MakeTransformer(const ParameterScope& scope, const UnetLevel& level) const;

  // Calls what is given for each block of its kind, in the order in which Predict runs them.
  template <typename Call>
  void ForResnets(const Call& call) const;
  template <typename Call>
  void ForAttentions(const Call& call) const;

  UnetConfig config_;
  Conv2d conv_in_;
  SinusoidEmbedding timesteps_, size_ids_;
  TimestepEmbedding time_embedding_, add_embedding_;
  std::vector<DownBlock> down_blocks_;
  MidBlock mid_block_;
  std::vector<UpBlock> up_blocks_;
  GroupNorm conv_norm_out_;
  Conv2d conv_out_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_UNET_H_
