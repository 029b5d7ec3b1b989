#ifndef HOTLORA_SRC_SDXL_UNET_ENCODER_H_
#define HOTLORA_SRC_SDXL_UNET_ENCODER_H_

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/conv2d.h"
#include "src/nn/parameter_source.h"
#include "src/nn/resample.h"
#include "src/nn/resnet_block.h"
#include "src/nn/timestep_embedding.h"
#include "src/nn/transformer_2d.h"
#include "src/sdxl/sdxl_config.h"

namespace hotlora {

// What a UNet adds for some rows of a batch: to each skip connection (the output of conv_in first) and to the output of
// the middle block, as many as UnetEncoder has.
struct ControlResiduals {
  std::vector<at::Tensor> down;  // [rows, channels of the skip, height, width]
  at::Tensor mid;                // [rows, channels, height, width]
};

// The residuals of the rows [first, first + residuals' rows) of a batch.
struct ControlledRows {
  int64_t first = 0;
  ControlResiduals residuals;
};

// All that one call of the network depends on. Rows are independent: each may be at its own timestep, for its own
// prompt and size.
struct UnetInput {
  at::Tensor sample;                 // [rows, in_channels, height, width], the network's dtype
  at::Tensor timesteps;              // [rows], float32, fractions allowed
  at::Tensor encoder_hidden_states;  // [rows, tokens, cross-attention width], the network's dtype
  at::Tensor pooled;                 // [rows, pooled width], the network's dtype
  at::Tensor time_ids;               // [rows, 6], float32: sizes above 2048 do not fit half types
  // Added to the UNet's rows; a row may be in several, or in none. ControlNets take none.
  std::vector<ControlledRows> control = {};
  // The image prompts in each cross attention, in the order in which they run; empty: none. ControlNets see none.
  std::vector<ImageBranch> image = {};
};

// What a step takes of it: the latents, and what the network made of the rest before. That can serve many steps, since
// it does not depend on the latents. It depends on the adapters in effect, and must be made again if they change.
struct UnetStep {
  at::Tensor sample;                         // as UnetInput's
  at::Tensor shifts;                         // [rows, shift_width]: ProjectTime; each row contiguous
  std::vector<at::Tensor> text;              // ProjectText
  std::vector<ControlledRows> control = {};  // as UnetInput's
  std::vector<ImageBranch> image = {};       // as UnetInput's
};

// Runs the blocks of a network, each with its part of a step. They must run in the order of ForResnets and
// ForAttentions. The step outlives it.
class BlockRunner {
 public:
  BlockRunner(const UnetStep& step, SideBranch side)
      : shifts_(step.shifts), text_(step.text), no_image_(step.image.empty()), image_(step.image), side_(side) {}

  // Each throws c10::Error if too little of the step is left.
  at::Tensor Run(const ResnetBlock& resnet, const at::Tensor& x);
  at::Tensor Run(const Transformer2d& attention, const at::Tensor& x);

  // Throws c10::Error if image prompts are left.
  void Finish() const;

 private:
  const at::Tensor& shifts_;
  int64_t shifts_used_ = 0;
  c10::ArrayRef<at::Tensor> text_;  // what is left of it
  bool no_image_;
  c10::ArrayRef<ImageBranch> image_;
  SideBranch side_;
};

// Called with the name of each stage and what it put out ("down_blocks.1"): for tests that look inside.
using StageTap = std::function<void(const std::string& stage, const at::Tensor& output)>;

// A resnet block with the options that all of a network's have.
ResnetBlock MakeResnet(const ParameterScope& scope, const UnetConfig& config, int64_t in, size_t level);
Transformer2d MakeTransformer(const ParameterScope& scope, const UnetConfig& config, const UnetLevel& level);

// The first half of SDXL's UNet, of which each ControlNet is a copy: embeddings of timestep and sizes, the entry
// convolution, down blocks and middle block.
//
// Layout   channels_last inside, so that pixels become tokens without a copy
// Threads  const
// Source   as Unet
class UnetEncoder {
 public:
  struct Output {
    std::vector<at::Tensor> skips;  // what the up blocks take, from the entry convolution on
    at::Tensor mid;
  };

  UnetEncoder() = default;
  UnetEncoder(const ParameterScope& scope, const UnetConfig& config);

  // The sum of the embeddings of timestep, pooled text and sizes: [rows, time width]. Arguments as UnetInput's.
  at::Tensor EmbedTime(const at::Tensor& timesteps, const at::Tensor& pooled, const at::Tensor& time_ids,
                       SideBranch side = {}, const StageTap& tap = {}) const;

  // The entry convolution of the sample: [rows, channels, height, width].
  at::Tensor Enter(const at::Tensor& sample, SideBranch side = {}) const;

  // All blocks. `entered` is Enter's result, or what a ControlNet makes of it.
  Output forward(const at::Tensor& entered, BlockRunner& runner, const StageTap& tap = {}, SideBranch side = {}) const;

  // Calls what is given for each block of its kind, in the order in which they run.
  template <typename Call>
  void ForResnets(const Call& call) const {
    for (const DownBlock& block : down_blocks_) {
      std::for_each(block.resnets.begin(), block.resnets.end(), call);
    }
    call(mid_block_.first);
    if (mid_block_.attention) {
      call(mid_block_.second);
    }
  }
  template <typename Call>
  void ForAttentions(const Call& call) const {
    for (const DownBlock& block : down_blocks_) {
      std::for_each(block.attentions.begin(), block.attentions.end(), call);
    }
    if (mid_block_.attention) {
      call(*mid_block_.attention);
    }
  }

  // Sinusoids of plain numbers such as size ids: [n] to [n, size_id_width].
  const SinusoidEmbedding& size_ids() const { return size_ids_; }

 private:
  struct DownBlock {
    std::vector<ResnetBlock> resnets;
    std::vector<Transformer2d> attentions;  // empty, or one after each resnet
    std::optional<Downsample2d> downsampler;
  };
  struct MidBlock {
    ResnetBlock first;
    std::optional<Transformer2d> attention;  // with it comes the second resnet
    ResnetBlock second;
  };

  static DownBlock MakeDownBlock(const ParameterScope& scope, const UnetConfig& config, size_t level);
  static MidBlock MakeMidBlock(const ParameterScope& scope, const UnetConfig& config);

  Conv2d conv_in_;
  SinusoidEmbedding timesteps_, size_ids_;
  TimestepEmbedding time_embedding_, add_embedding_;
  std::vector<DownBlock> down_blocks_;
  MidBlock mid_block_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_UNET_ENCODER_H_
