#ifndef HOTLORA_SRC_WEIGHTS_CHECKPOINT_CONFIGS_H_
#define HOTLORA_SRC_WEIGHTS_CHECKPOINT_CONFIGS_H_

// The JSON files of a checkpoint. No LibTorch here.

#include <string>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

#include "src/weights/model_files.h"

namespace hotlora {

struct CheckpointConfigs {
  nlohmann::json model_index;  // model_index.json
  nlohmann::json unet_config, vae_config, text_encoder_config, text_encoder_2_config, scheduler_config;
  // as ReadClipTokenizerFiles reads them; empty (single files alone): CLIP's own
  std::string tokenizer_folder, tokenizer_2_folder;
  ModelFiles files;  // what was read, or is to be read of the tokenizers
};

bool IsFile(const std::string& path);

// The JSON object in folder/name; `name` is what messages call the file. FailedPrecondition if it is missing, too
// big or no JSON object. Notes the file in `files`.
absl::StatusOr<nlohmann::json> ReadJson(const std::string& folder, const std::string& name, ModelFiles& files);

// Everything of a checkpoint but weights and hash, from the configs of the diffusers-layout `folder`. Its tokenizer
// folders are empty if the folder has no tokenizer and `tokenizers_needed` is false.
absl::StatusOr<CheckpointConfigs> ReadConfigs(const std::string& folder, bool tokenizers_needed);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_CHECKPOINT_CONFIGS_H_
