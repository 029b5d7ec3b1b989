#ifndef HOTLORA_SRC_WEIGHTS_LEFTOVERS_H_
#define HOTLORA_SRC_WEIGHTS_LEFTOVERS_H_

// Tensors that programs leave in SDXL checkpoints although no network uses them. They are passed over and counted; a
// tensor that is neither a leftover nor a parameter stays an error.

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace hotlora {

// Each function takes a tensor's name as its file has it.

// In a diffusers folder, by the component's name:
//   text_encoder, text_encoder_2  .position_ids, logit_scale, and the other half of a whole CLIP (vision_model.,
//                                 visual_projection.)
//   text_encoder alone            text_projection.weight (saved as CLIPTextModelWithProjection)
//   image_encoder                 .position_ids, logit_scale, and the other half (text_model., text_projection.)
//   vae                           loss., model_ema. of its training
bool IsLeftoverOfFolder(absl::string_view component, absl::string_view name);

// In a file of a VAE alone, bare or below "first_stage_model." or "vae.".
bool IsLeftoverOfVae(absl::string_view name);

// In a single file of SGM names:
//   model_ema., denoiser.                  training and SGM's sampler
//   betas, alphas_cumprod, posterior_...   the noise schedule as buffers of the older DDPM code
//   cond_stage_model., embedding_manager.  SD 1 and 2, after merges
//   conditioner.: position_ids, logit_scale, attn_mask, the first encoder's text_projection.weight
//   first_stage_model.: loss., model_ema.
// v_pred and ztsnr are no leftovers: they say how the model predicts.
bool IsLeftoverOfSingleFile(absl::string_view name);

// How many tensors a load passed over.
class LeftoverCount {
 public:
  void Add(absl::string_view name);

  // One line at info level, with the count and the first name; nothing if there are none. `file` is what the line calls
  // the file or the component.
  void Log(absl::string_view file) const;

  size_t count() const { return count_; }

 private:
  size_t count_ = 0;
  std::string first_;  // in the order of names
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_LEFTOVERS_H_
