#ifndef HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_
#define HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_

// An SDXL checkpoint, a diffusers-layout folder or a single file: its configs as JSON and its weights
// as tensors on the CPU in their stored dtype.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/weights/checkpoint_configs.h"

namespace hotlora {

// The weights of one component: parameter name, such as "conv_in.weight", to tensor. Networks take
// their tensors out by name and shape as they are built; what is not taken is surplus.
class ComponentWeights {
 public:
  // What the file calls a parameter; "": it has no such name.
  using StoredNames = std::function<std::string(const std::string& name)>;

  // `tensors` by the names that `stored_names` gives, by parameter name if there are none.
  ComponentWeights(std::string component, absl::flat_hash_map<std::string, at::Tensor> tensors,
                   StoredNames stored_names = nullptr)
      : component_(std::move(component)), tensors_(std::move(tensors)), stored_name_(std::move(stored_names)) {}

  // The tensor of that name, in the stored dtype on the CPU. A missing or wrongly shaped tensor is
  // noted for CheckComplete, and a zero expanded to the right shape comes back, which takes no memory, so that one load
  // reports every fault.
  at::Tensor Take(const std::string& name, at::IntArrayRef shape);

  // True if the tensor exists and was not taken yet.
  bool Has(const std::string& name) const;

  // FailedPrecondition that names each tensor, not taken yet, with a value that is not finite once it is rounded to
  // `dtype`.
  absl::Status CheckFinite(c10::ScalarType dtype) const;

  // FailedPrecondition that names each missing, surplus and wrongly shaped tensor as its file does (at
  // most 20 of a kind, then a count).
  absl::Status CheckComplete() const;

 private:
  std::string StoredName(const std::string& name) const;

  std::string component_;
  absl::flat_hash_map<std::string, at::Tensor> tensors_;
  StoredNames stored_name_;
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
};

// Where a checkpoint lies. A folder alone is its own source.
struct CheckpointSource {
  CheckpointSource() = default;
  CheckpointSource(std::string path) : model(std::move(path)) {}  // NOLINT(google-explicit-constructor)

  std::string model;         // diffusers-layout folder, or .safetensors file in SGM names
  std::string model_config;  // diffusers-layout folder whose configs a file gets; empty: those of stock SDXL
  std::string vae;  // another VAE in place of the checkpoint's: diffusers folder or .safetensors file; or empty
};

struct Checkpoint : CheckpointConfigs {
  ComponentWeights unet, vae, text_encoder, text_encoder_2;
  // What ServerInfo and every summary call model_sha256. Of a single file: its SHA-256. Of a folder:
  // the SHA-256 over lines of text, for each of text_encoder, text_encoder_2, unet, vae its name and
  // then the SHA-256 of each of its weight files in the order of their names. Where a single file's
  // VAE was replaced: likewise over "checkpoint", the file's SHA-256, "vae", those of the VAE's files.
  std::string sha256;
};

// Reads a folder or a single file.
//
// Folder. Weight files: `diffusion_pytorch_model` (unet, vae) and `model` (text encoders), each as
// `.safetensors` or `.safetensors.index.json` with shards; else the variants .fp32, .fp16, .bf16, as
// `.fp16.safetensors`, or with shards as `.safetensors.index.fp16.json` or
// `.fp16.safetensors.index.json`; the first of these that exists. Keys of the text
// encoders are accepted with and without the leading "text_model." and come back with it;
// leftovers.h says what is passed over. A linear stored as a [out, in, 1, 1] convolution comes back as
// it is stored.
//
// Single file: see single_file.h. The VAE that replaces another may be a folder (config.json and
// weight files as above) or a file in diffusers or SGM names, bare or below "first_stage_model." or
// "vae.", also a whole SDXL file, whose other parts are passed over.
//
// Tensors are filled as their file is read, so that nothing is held twice. FailedPrecondition names
// the file or key that is missing or wrong; DataLoss if a file is not a sound safetensors file.
absl::StatusOr<Checkpoint> ReadCheckpoint(const CheckpointSource& source);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_
