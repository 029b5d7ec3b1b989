#ifndef HOTLORA_SRC_WEIGHTS_SGM_NAMES_H_
#define HOTLORA_SRC_WEIGHTS_SGM_NAMES_H_

// What single-file checkpoints (Stability's SGM layout) call the parts of our networks. Names go one way only, from the
// diffusers or transformers name to the file's: a reader looks our own names up in the file, so that nothing is
// guessed from what the file says. No LibTorch here.
//
// Source   diffusers loaders/single_file_utils.py, kohya library/sdxl_model_util.py

#include <set>
#include <string>

#include "absl/strings/string_view.h"

namespace hotlora {

// Names of the UNet, below "model.diffusion_model.". An upsampler is its block's third part if the block has
// attention, else the second; so the blocks with attention must be known.
class SgmUnetNames {
 public:
  SgmUnetNames(int layers_per_block, std::set<std::string> up_blocks_with_attention);

  // The name of a module, such as "down_blocks.1.attentions.0.proj_in"; "" if it has no such name.
  std::string OfModule(absl::string_view path) const;

  // The name of a parameter: a module with ".weight" or ".bias" behind it.
  std::string OfParameter(absl::string_view name) const;

 private:
  int group_;  // blocks of one resolution
  std::set<std::string> up_blocks_with_attention_;
};

// The name of a parameter of a ControlNet, below "control_model." or nothing. The hint network has the four levels of
// all that are published. "" for what only union nets have.
std::string SgmControlNetParameter(absl::string_view name, int layers_per_block);

// The name of a parameter of the VAE, below "first_stage_model.". The file counts the decoder's levels from the
// outermost, our names from the innermost. Names that are equal in both come back as they are.
std::string SgmVaeParameter(absl::string_view name, int levels);

// The name of a parameter of the second text encoder, below "conditioner.embedders.1.model." (OpenCLIP's names). The
// file holds q, k and v as one tensor, whose thirds are called by its name with " (q)", " (k)", " (v)" behind it.
std::string OpenClipParameter(absl::string_view name);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SGM_NAMES_H_
