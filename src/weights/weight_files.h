#ifndef HOTLORA_SRC_WEIGHTS_WEIGHT_FILES_H_
#define HOTLORA_SRC_WEIGHTS_WEIGHT_FILES_H_

// What both layouts of checkpoints share: safetensors files into tensors.

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "src/weights/checkpoint.h"
#include "src/weights/checkpoint_configs.h"
#include "src/weights/model_files.h"

namespace hotlora {

using Tensors = absl::flat_hash_map<std::string, at::Tensor>;

// `status` with "name: " before its message.
absl::Status Prefixed(absl::string_view name, const absl::Status& status);

// Where a stored tensor goes: into `tensors` under `key`; nowhere where `tensors` is null.
struct TensorPlace {
  Tensors* tensors = nullptr;
  std::string key;
};

// Reads the safetensors file on several threads to the places that `place_of` says (asked once for each tensor, on the
// calling thread, before its data are read), and returns the file's SHA-256. FailedPrecondition if a tensor that is
// kept has another dtype than F64, F32, F16, BF16, or its key is taken; else SafetensorsFile's errors.
absl::StatusOr<std::string> ReadTensors(const std::string& path,
                                        absl::FunctionRef<TensorPlace(const std::string& name)> place_of);

// The key of a text encoder's tensor in transformers' names, with its leading "text_model.".
std::string TextEncoderKey(absl::string_view stored);

// The name of a VAE's tensor, in diffusers' or SGM's names, as both are today: older diffusers files call the attention
// otherwise, and single files from diffusers' conversion script of 2023 have its new names in the middle of SGM's
// (https://github.com/huggingface/diffusers/issues/4790).
std::string VaeKey(absl::string_view stored);

// One component's weights, and the SHA-256 of its files in the order of their names, each with a newline behind it.
struct ReadWeights {
  ComponentWeights weights;
  std::string sha256_lines;
  ModelFiles files;
};

// Reads the weights of `component` from `folder`; messages call its files prefix/name, or name if that is empty.
// `stem` is the weight files' name as in ReadCheckpoint.
absl::StatusOr<ReadWeights> ReadComponent(const std::string& folder, const std::string& prefix,
                                          const std::string& component, const std::string& stem);

// The VAE that --vae names: a diffusers folder, or a file in diffusers or SGM names with or without a prefix, or a
// whole SDXL file. The config of a folder replaces `config`; a file is read with it.
absl::StatusOr<ReadWeights> ReadOtherVae(const std::string& path, nlohmann::json& config);

// A VAE whose tensors have SGM names, with as many levels as its config says.
ComponentWeights SgmVae(Tensors tensors, const nlohmann::json& vae_config);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_WEIGHT_FILES_H_
