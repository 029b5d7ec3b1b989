#ifndef HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_
#define HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_

// A diffusers-layout SDXL folder: its configs as JSON and its weights as tensors on the CPU in
// their stored dtype.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

namespace hotlora {

// The weights of one component: parameter name, such as "conv_in.weight", to tensor. Networks take
// their tensors out by name and shape as they are built; what nobody took is surplus.
class ComponentWeights {
 public:
  ComponentWeights(std::string component, absl::flat_hash_map<std::string, at::Tensor> tensors)
      : component_(std::move(component)), tensors_(std::move(tensors)) {}

  // The tensor of that name, in the stored dtype on the CPU. A missing or wrongly shaped tensor is
  // noted for CheckComplete, and zeros of the right shape come back, so that one load reports every
  // fault.
  at::Tensor Take(const std::string& name, at::IntArrayRef shape);

  // True where the tensor exists and nobody took it yet.
  bool Has(const std::string& name) const;

  // Drops the tensors whose names begin with `prefix`: parts of the component that nothing here
  // needs.
  void Ignore(absl::string_view prefix);

  // FailedPrecondition that names each missing, surplus and wrongly shaped tensor (at most 20 of a
  // kind, then a count).
  absl::Status CheckComplete() const;

 private:
  std::string component_;
  absl::flat_hash_map<std::string, at::Tensor> tensors_;
  std::vector<std::string> missing_;
  std::vector<std::string> misshapen_;
};

struct Checkpoint {
  std::string folder;
  nlohmann::json model_index;  // model_index.json
  nlohmann::json unet_config, vae_config, text_encoder_config, text_encoder_2_config, scheduler_config;
  std::string tokenizer_folder,
      tokenizer_2_folder;  // vocab.json, merges.txt, tokenizer_config.json
  ComponentWeights unet, vae, text_encoder, text_encoder_2;
  // What ServerInfo and every summary call model_sha256: the SHA-256 over lines of text, for each
  // of text_encoder, text_encoder_2, unet, vae its name and then the SHA-256 of each of its weight
  // files in the order of their names.
  std::string sha256;
};

// Reads the folder. Weight files: `diffusion_pytorch_model` (unet, vae) and `model` (text
// encoders), each as
// `.safetensors`, `.safetensors.index.json` with shards, `.fp16.safetensors` or
// `.safetensors.index.fp16.json` with shards; the first of these that exists. Tensors are filled as
// their file is read, so that nothing is held twice. Keys of the text encoders are accepted with
// and without the leading "text_model." and come back with it; `position_ids` buffers are dropped.
// A linear stored as a [out, in, 1, 1] convolution comes back as it is stored. FailedPrecondition
// names the file or key that is missing or wrong; DataLoss where a file is no sound safetensors
// file.
absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& folder);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_CHECKPOINT_H_
