#include "src/weights/single_file.h"

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/weights/leftovers.h"
#include "src/weights/model_unsupported.h"
#include "src/weights/sdxl_base_configs.h"
#include "src/weights/sgm_names.h"
#include "src/weights/single_file_header.h"
#include "src/weights/weight_files.h"

namespace hotlora {
namespace {

constexpr char kUnet[] = "model.diffusion_model.";
constexpr char kFirst[] = "model.diffusion_model.input_blocks.0.0.weight";
constexpr char kVae[] = "first_stage_model.";
constexpr char kText[] = "conditioner.embedders.0.transformer.";
constexpr char kText2[] = "conditioner.embedders.1.model.";

// Tensors that say how the model predicts: ApplyPrediction reads them from the header.
bool IsMarker(absl::string_view name) { return name == "v_pred" || name == "ztsnr"; }

struct Parts {
  Tensors unet, vae, text, text_2;
};

// Where a tensor goes; `known` is false if it belongs to nothing.
struct Sorted {
  bool known = true;
  TensorPlace place;
};

Sorted SortTensor(const std::string& name, bool keep_vae, Parts& parts) {
  if (IsMarker(name) || IsLeftoverOfSingleFile(name)) {
    return {};
  }
  absl::string_view key = name;
  if (absl::ConsumePrefix(&key, kUnet)) {
    return {true, {&parts.unet, std::string(key)}};
  }
  if (absl::ConsumePrefix(&key, kVae)) {
    return {true, {keep_vae ? &parts.vae : nullptr, VaeKey(key)}};
  }
  if (absl::ConsumePrefix(&key, kText)) {
    return {true, {&parts.text, TextEncoderKey(key)}};
  }
  if (absl::ConsumePrefix(&key, kText2)) {
    return {true, {&parts.text_2, std::string(key)}};
  }
  return {false, {}};
}

// Before gigabytes are read: every tensor must belong somewhere.
absl::Status CheckSurplus(const SafetensorsFile& header, absl::string_view path) {
  constexpr size_t kMostNamed = 20;
  Parts parts;
  LeftoverCount leftovers;
  std::vector<std::string> surplus;
  for (const StoredTensor& tensor : header.tensors()) {
    if (IsLeftoverOfSingleFile(tensor.name)) {
      leftovers.Add(tensor.name);
    } else if (!SortTensor(tensor.name, /*keep_vae=*/true, parts).known) {
      surplus.push_back(tensor.name);
    }
  }
  leftovers.Log(path);
  if (surplus.empty()) {
    return absl::OkStatus();
  }
  const size_t count = surplus.size();
  surplus.resize(std::min(count, kMostNamed));
  return ModelUnsupported(absl::StrCat("the file has ", count,
                                       " tensors that belong to no part of SDXL: ", absl::StrJoin(surplus, ", "),
                                       count > kMostNamed ? absl::StrCat(", and ", count - kMostNamed, " more") : ""));
}

// Brings OpenCLIP's tensors to the layout of ours: views of the thirds of each fused q, k, v, the projection
// transposed. Tensors of unexpected shape stay as they are and turn out to be surplus.
void SplitOpenClip(Tensors& tensors) {
  std::vector<std::string> fused;
  for (const auto& [name, tensor] : tensors) {
    if ((absl::EndsWith(name, ".attn.in_proj_weight") || absl::EndsWith(name, ".attn.in_proj_bias")) &&
        tensor.dim() > 0 && tensor.size(0) % 3 == 0) {
      fused.push_back(name);
    }
  }
  for (const std::string& name : fused) {
    const auto found = tensors.find(name);
    const at::Tensor whole = std::move(found->second);
    tensors.erase(found);
    const int64_t rows = whole.size(0) / 3;
    int64_t begin = 0;
    for (const char* const third : {" (q)", " (k)", " (v)"}) {
      tensors.emplace(absl::StrCat(name, third), whole.narrow(0, begin, rows));
      begin += rows;
    }
  }
  const auto projection = tensors.find("text_projection");
  if (projection != tensors.end() && projection->second.dim() == 2) {
    projection->second = projection->second.t().contiguous();
  } else if (const auto linear = tensors.find("text_projection.weight"); linear != tensors.end()) {
    at::Tensor weight = std::move(linear->second);  // already a linear layer's layout
    tensors.erase(linear);
    tensors.emplace("text_projection", std::move(weight));
  }
}

// The config is not checked yet: if it makes no sense, any names do.
SgmUnetNames NamesFor(const nlohmann::json& unet_config) {
  int layers_per_block = 2;
  const auto layers = unet_config.find("layers_per_block");
  if (layers != unet_config.end() && layers->is_number_integer() && *layers > 0 && *layers < 1000) {
    layers_per_block = layers->get<int>();
  }
  std::set<std::string> with_attention;
  const auto types = unet_config.find("up_block_types");
  if (types != unet_config.end() && types->is_array()) {
    for (size_t i = 0; i < types->size(); ++i) {
      if ((*types)[i] == "CrossAttnUpBlock2D") {
        with_attention.insert(absl::StrCat(i));
      }
    }
  }
  return SgmUnetNames(layers_per_block, std::move(with_attention));
}

// Before networks of the configs' size are allocated in vain: the widths that tell models apart.
absl::Status CheckWidths(const SafetensorsFile& header, const CheckpointConfigs& configs) {
  const auto number = [](const nlohmann::json& config, const char* key) {
    nlohmann::json value = config.value(key, nlohmann::json());
    value = value.is_array() && !value.empty() ? nlohmann::json(value[0]) : value;
    return value.is_number_integer() ? value.get<int64_t>() : 0;
  };
  const std::tuple<std::string, size_t, const nlohmann::json&, const char*> widths[] = {
      {kFirst, 0, configs.unet_config, "block_out_channels"},
      {absl::StrCat(kText, "text_model.embeddings.token_embedding.weight"), 1, configs.text_encoder_config,
       "hidden_size"},
      {absl::StrCat(kText2, "token_embedding.weight"), 1, configs.text_encoder_2_config, "hidden_size"},
  };
  for (const auto& [name, dimension, config, key] : widths) {
    const StoredTensor* const tensor = header.Find(name);
    const int64_t wanted = number(config, key);
    if (tensor != nullptr && tensor->shape.size() > dimension && wanted != 0 && tensor->shape[dimension] != wanted) {
      return ModelUnsupported(absl::StrCat("the file does not fit its configs: ", name, " is ",
                                           tensor->shape[dimension], " wide, ", key, " is ", wanted,
                                           "; --model-config names the folder of a checkpoint's own configs"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Checkpoint> ReadSingleFile(const CheckpointSource& source) {
  ModelFiles files;
  files.Add(source.model);
  const auto header = SafetensorsFile::ReadHeader(source.model);
  if (!header.ok()) {
    return Prefixed(source.model, header.status());
  }
  ABSL_RETURN_IF_ERROR(CheckKind(*header));
  ABSL_RETURN_IF_ERROR(CheckSurplus(*header, source.model));
  const bool keep_vae = source.vae.empty();
  if (keep_vae && !HasPrefix(*header, kVae)) {
    return ModelUnsupported("the file has no VAE (first_stage_model.); give one as --vae");
  }
  CheckpointConfigs configs = SdxlBaseConfigs();
  if (!source.model_config.empty()) {
    ABSL_ASSIGN_OR_RETURN(configs, ReadConfigs(source.model_config, /*tokenizers_needed=*/false));
  }
  ABSL_RETURN_IF_ERROR(CheckWidths(*header, configs));
  ABSL_RETURN_IF_ERROR(ApplyPrediction(*header, configs.scheduler_config));
  Parts parts;
  auto sha256 =
      ReadTensors(source.model, [&](const std::string& name) { return SortTensor(name, keep_vae, parts).place; });
  if (!sha256.ok()) {
    return Prefixed(source.model, sha256.status());
  }
  SplitOpenClip(parts.text_2);
  std::string model_hash = *sha256;
  ComponentWeights vae = SgmVae(std::move(parts.vae), configs.vae_config);
  if (!keep_vae) {
    ABSL_ASSIGN_OR_RETURN(ReadWeights other, ReadOtherVae(source.vae, configs.vae_config));
    vae = std::move(other.weights);
    files.Add(other.files);
    const std::string lines = absl::StrCat("checkpoint\n", *sha256, "\nvae\n", other.sha256_lines);
    Sha256 hash;
    hash.Update(lines.data(), lines.size());
    model_hash = hash.HexDigest();
  }
  const SgmUnetNames names = NamesFor(configs.unet_config);
  configs.files.Add(files);
  return Checkpoint{std::move(configs),
                    ComponentWeights("unet", std::move(parts.unet),
                                     [names](const std::string& name) { return names.OfParameter(name); }),
                    std::move(vae),
                    ComponentWeights("text_encoder", std::move(parts.text)),
                    ComponentWeights("text_encoder_2", std::move(parts.text_2),
                                     [](const std::string& name) { return OpenClipParameter(name); }),
                    std::move(model_hash)};
}

}  // namespace hotlora
