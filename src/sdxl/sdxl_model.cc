#include "src/sdxl/sdxl_model.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/base/status_macros.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/checkpoint.h"
#include "src/weights/model_unsupported.h"

namespace hotlora {
namespace {

// Every fault of every component in one status.
absl::Status CheckComplete(const Checkpoint& checkpoint) {
  std::vector<std::string> faults;
  for (const ComponentWeights* weights :
       {&checkpoint.text_encoder, &checkpoint.text_encoder_2, &checkpoint.unet, &checkpoint.vae}) {
    absl::Status status = weights->CheckComplete();
    if (!status.ok()) {
      faults.emplace_back(status.message());
    }
  }
  if (faults.empty()) {
    return absl::OkStatus();
  }
  return ModelUnsupported(absl::StrJoin(faults, "; "));
}

// A single file has no tokenizer folder; `pad_token` is for CLIP's own then.
absl::StatusOr<std::unique_ptr<ClipTokenizer>> LoadTokenizer(const std::string& folder, const char* pad_token) {
  return folder.empty() ? ClipTokenizer::LoadClip(pad_token) : ClipTokenizer::Load(folder);
}

// Every id of the tokenizer must be a row of its encoder's table.
absl::Status CheckTokenizer(const char* name, const ClipTokenizer& tokenizer, const TextEncoderConfig& config) {
  if (tokenizer.vocabulary_size() > static_cast<size_t>(config.vocab_size) ||
      ClipTokenizer::kPaddedLength > static_cast<size_t>(config.positions)) {
    return ModelUnsupported(absl::StrCat(name, " has ", tokenizer.vocabulary_size(), " tokens and pads to ",
                                         ClipTokenizer::kPaddedLength, ", but its text encoder takes ids below ",
                                         config.vocab_size, " and ", config.positions, " of them"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<SdxlModel>> SdxlModel::Load(const CheckpointSource& source, ComputePlace place) {
  ABSL_ASSIGN_OR_RETURN(Checkpoint checkpoint, ReadCheckpoint(source));
  // Before the configs and names are judged: a half-written file would be blamed for what it is not.
  ABSL_RETURN_IF_ERROR(checkpoint.files.CheckUnchanged());
  ABSL_ASSIGN_OR_RETURN(SdxlConfig config, ParseSdxlConfig(checkpoint));
  std::unique_ptr<SdxlModel> model(new SdxlModel(place, std::move(config)));
  ABSL_ASSIGN_OR_RETURN(model->tokenizer_, LoadTokenizer(checkpoint.tokenizer_folder, "<|endoftext|>"));
  ABSL_ASSIGN_OR_RETURN(model->tokenizer_2_, LoadTokenizer(checkpoint.tokenizer_2_folder, "!"));
  ABSL_RETURN_IF_ERROR(CheckTokenizer("tokenizer", *model->tokenizer_, model->config_.text_encoder));
  ABSL_RETURN_IF_ERROR(CheckTokenizer("tokenizer_2", *model->tokenizer_2_, model->config_.text_encoder_2));
  ABSL_RETURN_IF_ERROR(GuardTorch("model load", [&] { return model->BuildNetworks(checkpoint); }));
  model->scheduler_config_ = std::move(checkpoint.scheduler_config);
  model->sha256_ = std::move(checkpoint.sha256);
  model->files_ = std::move(checkpoint.files);
  ABSL_RETURN_IF_ERROR(model->files_.CheckUnchanged());
  return model;
}

absl::Status SdxlModel::BuildNetworks(Checkpoint& checkpoint) {
  auto parameters = [this](ComponentWeights& weights, Component component) {
    return CheckpointParameters(weights, place_.device, place_.dtype, component, adaptable_);
  };
  CheckpointParameters text = parameters(checkpoint.text_encoder, Component::kTextEncoder);
  text_encoder_ = std::make_unique<TextEncoder>(ParameterScope(text), config_.text_encoder);
  CheckpointParameters text_2 = parameters(checkpoint.text_encoder_2, Component::kTextEncoder2);
  text_encoder_2_ = std::make_unique<TextEncoder>(ParameterScope(text_2), config_.text_encoder_2);
  CheckpointParameters unet = parameters(checkpoint.unet, Component::kUnet);
  unet_ = std::make_unique<Unet>(ParameterScope(unet), config_.unet);
  CheckpointParameters vae(checkpoint.vae, place_.device, place_.vae_dtype);
  vae_encoder_ = std::make_unique<VaeEncoder>(ParameterScope(vae), config_.vae);
  vae_decoder_ = std::make_unique<VaeDecoder>(ParameterScope(vae), config_.vae);
  weight_bytes_ = {text.bytes() + text_2.bytes(), unet.bytes(), vae.bytes(), 0};
  for (const AdaptableWeight& weight : adaptable_.weights) {
    weight_bytes_.clean += weight.clean.nbytes();
  }
  Synchronize(place_.device);  // other streams read the weights
  adaptable_.table.unet_layers_per_block = static_cast<int>(config_.unet.layers_per_block);
  return CheckComplete(checkpoint);
}

}  // namespace hotlora
