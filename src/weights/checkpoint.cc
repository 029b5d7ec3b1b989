#include "src/weights/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

#include "src/base/printable.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/single_file.h"
#include "src/weights/weight_files.h"

namespace hotlora {
namespace {

absl::StatusOr<Checkpoint> ReadFolder(const CheckpointSource& source) {
  if (!source.model_config.empty()) {
    return absl::FailedPreconditionError("--model-config is for single-file checkpoints; a folder has its own configs");
  }
  const std::string& folder = source.model;
  ABSL_ASSIGN_OR_RETURN(CheckpointConfigs configs, ReadConfigs(folder, /*tokenizers_needed=*/true));
  ABSL_ASSIGN_OR_RETURN(ReadWeights text, ReadComponent(folder, "text_encoder", "text_encoder", "model"));
  ABSL_ASSIGN_OR_RETURN(ReadWeights text_2, ReadComponent(folder, "text_encoder_2", "text_encoder_2", "model"));
  ABSL_ASSIGN_OR_RETURN(ReadWeights unet, ReadComponent(folder, "unet", "unet", "diffusion_pytorch_model"));
  auto vae = source.vae.empty() ? ReadComponent(folder, "vae", "vae", "diffusion_pytorch_model")
                                : ReadOtherVae(source.vae, configs.vae_config);
  ABSL_RETURN_IF_ERROR(vae.status());
  const std::string lines = absl::StrCat("text_encoder\n", text.sha256_lines, "text_encoder_2\n", text_2.sha256_lines,
                                         "unet\n", unet.sha256_lines, "vae\n", vae->sha256_lines);
  Sha256 hash;
  hash.Update(lines.data(), lines.size());
  for (const ModelFiles& files : {text.files, text_2.files, unet.files, vae->files}) {
    configs.files.Add(files);
  }
  return Checkpoint{std::move(configs),      std::move(unet.weights),   std::move(vae->weights),
                    std::move(text.weights), std::move(text_2.weights), hash.HexDigest()};
}

// "missing 2: a, b"; nothing if there are none.
void AppendNames(absl::string_view kind, std::vector<std::string> names, std::vector<std::string>& parts) {
  constexpr size_t kMostNamed = 20;
  if (names.empty()) {
    return;
  }
  std::sort(names.begin(), names.end());
  const size_t count = names.size();
  names.resize(std::min(count, kMostNamed));
  parts.push_back(absl::StrCat(kind, " ", count, ": ", absl::StrJoin(names, ", "),
                               count > kMostNamed ? absl::StrCat(", and ", count - kMostNamed, " more") : ""));
}

}  // namespace

at::Tensor ComponentWeights::Take(const std::string& name, at::IntArrayRef shape) {
  const std::string stored = StoredName(name);
  const auto found = tensors_.find(stored);
  if (found == tensors_.end()) {
    missing_.push_back(stored);
    return at::zeros({}).expand(shape);
  }
  at::Tensor tensor = std::move(found->second);
  tensors_.erase(found);
  if (shape.size() == 2 && tensor.sizes() == at::IntArrayRef({shape[0], shape[1], 1, 1})) {
    return tensor.view(shape);
  }
  if (tensor.sizes() != shape) {
    misshapen_.push_back(absl::StrCat(stored, " is ", ShapeText(tensor.sizes()), ", expected ", ShapeText(shape)));
    return at::zeros({}).expand(shape);
  }
  return tensor;
}

bool ComponentWeights::Has(const std::string& name) const { return tensors_.contains(StoredName(name)); }

std::string ComponentWeights::StoredName(const std::string& name) const {
  std::string stored = stored_name_ ? stored_name_(name) : name;
  return stored.empty() ? name : stored;
}

absl::Status ComponentWeights::CheckFinite(c10::ScalarType dtype) const {
  std::vector<std::string> names, parts;
  for (const auto& [name, tensor] : tensors_) {
    if (!at::isfinite(tensor.to(dtype)).all().item<bool>()) {
      names.push_back(name);
    }
  }
  AppendNames(absl::StrCat("not finite in ", c10::toString(dtype)), std::move(names), parts);
  return parts.empty() ? absl::OkStatus()
                       : absl::FailedPreconditionError(absl::StrCat("weights of ", component_, ": ", parts.front()));
}

absl::Status ComponentWeights::CheckComplete() const {
  std::vector<std::string> surplus;
  for (const auto& [name, tensor] : tensors_) {
    surplus.push_back(name);
  }
  std::vector<std::string> parts;
  AppendNames("missing", missing_, parts);
  AppendNames("surplus", std::move(surplus), parts);
  AppendNames("wrong shape", misshapen_, parts);
  if (parts.empty()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("weights of ", component_, " do not fit its config: ", absl::StrJoin(parts, "; ")));
}

absl::StatusOr<Checkpoint> ReadCheckpoint(const CheckpointSource& source) {
  std::error_code error;
  const bool single_file =
      std::filesystem::exists(source.model, error) && !std::filesystem::is_directory(source.model, error);
  absl::StatusOr<Checkpoint> checkpoint = absl::UnknownError("not read");
  const absl::Status status = GuardTorch("loading the checkpoint", [&] {
    checkpoint = single_file ? ReadSingleFile(source) : ReadFolder(source);
    return checkpoint.status();
  });
  if (!status.ok()) {
    return status;
  }
  return checkpoint;
}

}  // namespace hotlora
