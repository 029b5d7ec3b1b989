#ifndef HOTLORA_SRC_SDXL_IMAGE_PROMPT_H_
#define HOTLORA_SRC_SDXL_IMAGE_PROMPT_H_

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/ArrayRef.h>

#include "src/nn/attention.h"
#include "src/nn/linear.h"
#include "src/nn/norm.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/image_encoder.h"
#include "src/sdxl/image_prompt_config.h"
#include "src/sdxl/resampler.h"

namespace hotlora {

// An IP-Adapter for SDXL: makes tokens of pictures, which the UNet's cross attentions see beside the text.
//
// Threads  const
// Source   Ye et al. 2023, arXiv 2308.06721; diffusers IPAdapterAttnProcessor2_0
class ImagePrompt {
 public:
  ImagePrompt(const ParameterScope& scope, const ImagePromptConfig& config);

  // The tokens of several pictures, joined: [1, pictures * tokens, context width]. REQUIRES: the encoder gives
  // config().encoder_width.
  at::Tensor TokensOf(const EncodedPictures& pictures) const;

  // The tokens of the negative row, which stand for no picture, as many as of `pictures`. `zeros`: of plus, what the
  // encoder makes of pixels that are 0 once they are normalised (so of no black picture); the standard kind needs none.
  at::Tensor TokensOfNone(const EncodedPictures& zeros, int64_t pictures) const;

  // What each cross attention sees of tokens [rows, n, context width], in the order of config().places: [rows, n, 2 *
  // its width], keys before values. The same in every step.
  std::vector<at::Tensor> ProjectTokens(const at::Tensor& tokens) const;

  const ImagePromptConfig& config() const { return config_; }

 private:
  // What the encoder gives to the adapter's tokens.
  at::Tensor Project(const at::Tensor& encoded) const;

  ImagePromptConfig config_;
  Linear proj_;  // of the standard kind
  LayerNorm norm_;
  Resampler resampler_;  // of plus
  std::vector<Linear> keys_values_;
};

// Adds an image prompt to the rows from `first` on of UnetInput::image. `keys_values` is ProjectTokens's; `scales` has
// a scale for each cross attention, of which 0 leaves the prompt out.
void AddImagePrompt(int64_t first, c10::ArrayRef<at::Tensor> keys_values, c10::ArrayRef<double> scales,
                    std::vector<ImageBranch>& image);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_IMAGE_PROMPT_H_
