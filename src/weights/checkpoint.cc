#include "src/weights/checkpoint.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

using Tensors = absl::flat_hash_map<std::string, at::Tensor>;

constexpr uintmax_t kMaxJsonBytes = 64 << 20;  // SDXL's own index files have 0.3 MB

bool IsFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

// `name` is what messages call the file: its path inside the checkpoint.
absl::StatusOr<nlohmann::json> ReadJson(const std::string& folder, const std::string& name) {
  const std::string path = absl::StrCat(folder, "/", name);
  if (!IsFile(path)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " is missing"));
  }
  std::error_code error;
  if (std::filesystem::file_size(path, error) > kMaxJsonBytes) {
    return absl::FailedPreconditionError(absl::StrCat(name, " is over ", kMaxJsonBytes, " bytes"));
  }
  std::ifstream stream(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  if (stream.bad() || !stream.is_open()) {
    return absl::FailedPreconditionError(absl::StrCat(name, " cannot be read"));
  }
  try {
    nlohmann::json json = nlohmann::json::parse(text);
    if (!json.is_object()) {
      return absl::FailedPreconditionError(absl::StrCat(name, " is not a JSON object"));
    }
    return json;
  } catch (const nlohmann::json::parse_error& fault) {
    return absl::FailedPreconditionError(absl::StrCat(name, " is not JSON: fault at byte ", fault.byte));
  }
}

std::optional<c10::ScalarType> ScalarTypeOf(StoredDtype dtype) {
  switch (dtype) {
    case StoredDtype::kF64:
      return c10::kDouble;
    case StoredDtype::kF32:
      return c10::kFloat;
    case StoredDtype::kF16:
      return c10::kHalf;
    case StoredDtype::kBF16:
      return c10::kBFloat16;
    default:
      return std::nullopt;
  }
}

// The weight files of one component, and which tensor is in which where an index says so.
struct WeightFiles {
  std::vector<std::string> names;
  std::optional<std::map<std::string, std::string>> weight_map;
};

absl::StatusOr<WeightFiles> ReadIndex(const std::string& folder, const std::string& component,
                                      const std::string& index_name) {
  const std::string name = absl::StrCat(component, "/", index_name);
  ABSL_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJson(folder, name));
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object() || map->empty()) {
    return absl::FailedPreconditionError(absl::StrCat(name, " has no weight_map"));
  }
  WeightFiles files;
  files.weight_map.emplace();
  std::set<std::string> shards;
  for (const auto& [key, shard] : map->items()) {
    if (!shard.is_string() || !absl::EndsWith(shard.get<std::string>(), ".safetensors") ||
        absl::StrContains(shard.get<std::string>(), '/')) {
      return absl::FailedPreconditionError(absl::StrCat(name, " names no safetensors file of its folder for ", key));
    }
    shards.insert(shard.get<std::string>());
    files.weight_map->emplace(key, shard.get<std::string>());
  }
  files.names.assign(shards.begin(), shards.end());
  return files;
}

absl::StatusOr<WeightFiles> FindWeightFiles(const std::string& folder, const std::string& component,
                                            const std::string& stem) {
  const auto exists = [&](const std::string& name) { return IsFile(absl::StrCat(folder, "/", component, "/", name)); };
  for (const bool half : {false, true}) {
    const std::string single = absl::StrCat(stem, half ? ".fp16.safetensors" : ".safetensors");
    if (exists(single)) {
      return WeightFiles{{single}, std::nullopt};
    }
    const std::string index = absl::StrCat(stem, half ? ".safetensors.index.fp16.json" : ".safetensors.index.json");
    if (exists(index)) {
      return ReadIndex(folder, component, index);
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat(component, "/", stem, ".safetensors is missing, and its .fp16 and sharded spellings too"));
}

// The name under which a stored tensor comes back; empty where it is dropped.
std::string ComponentKey(bool text_encoder, const std::string& stored) {
  if (!text_encoder) {
    return stored;
  }
  if (absl::EndsWith(stored, ".position_ids")) {
    return "";
  }
  // transformers 5 writes CLIPTextModel without the prefix that all published files have.
  for (const char* part : {"embeddings.", "encoder.", "final_layer_norm."}) {
    if (absl::StartsWith(stored, part)) {
      return absl::StrCat("text_model.", stored);
    }
  }
  return stored;
}

// Reads the tensors of one weight file into `tensors` and returns the file's SHA-256.
absl::StatusOr<std::string> ReadTensors(const std::string& path, bool text_encoder, Tensors& tensors,
                                        absl::flat_hash_set<std::string>& stored_names) {
  std::vector<std::byte> dropped;
  const auto room = [&](const StoredTensor& stored) -> absl::StatusOr<void*> {
    stored_names.insert(stored.name);
    const std::string key = ComponentKey(text_encoder, stored.name);
    if (key.empty()) {
      dropped.resize(stored.bytes());
      return dropped.data();
    }
    const std::optional<c10::ScalarType> dtype = ScalarTypeOf(stored.dtype);
    if (!dtype.has_value()) {
      return absl::FailedPreconditionError(
          absl::StrCat("has ", stored.name, " in dtype ", NameOf(stored.dtype), "; allowed are F64, F32, F16, BF16"));
    }
    at::Tensor tensor = at::empty(stored.shape, at::TensorOptions(c10::kCPU).dtype(*dtype));
    void* const data = tensor.mutable_data_ptr();
    if (!tensors.emplace(key, std::move(tensor)).second) {
      return absl::FailedPreconditionError(absl::StrCat("has ", key, " a second time"));
    }
    return data;
  };
  ABSL_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::ReadInto(path, room));
  for (const StoredTensor& stored : file.tensors()) {
    if (stored.bytes() == 0) {
      ABSL_RETURN_IF_ERROR(room(stored).status());
    }
  }
  return file.sha256();
}

absl::Status Prefixed(absl::string_view name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
}

// Reads all weights of one component and adds its files to `model_hash`.
absl::StatusOr<ComponentWeights> ReadComponent(const std::string& folder, const std::string& component,
                                               const std::string& stem, Sha256& model_hash) {
  ABSL_ASSIGN_OR_RETURN(const WeightFiles files, FindWeightFiles(folder, component, stem));
  const auto add = [&model_hash](const std::string& line) {
    model_hash.Update(line.data(), line.size());
    model_hash.Update("\n", 1);
  };
  add(component);
  Tensors tensors;
  for (const std::string& file_name : files.names) {
    const std::string name = absl::StrCat(component, "/", file_name);
    absl::flat_hash_set<std::string> stored_names;
    const auto sha256 = ReadTensors(absl::StrCat(folder, "/", name), stem == "model", tensors, stored_names);
    if (absl::IsNotFound(sha256.status())) {
      return absl::FailedPreconditionError(absl::StrCat(name, " is missing, though the index names it"));
    }
    if (!sha256.ok()) {
      return Prefixed(name, sha256.status());
    }
    add(*sha256);
    if (files.weight_map.has_value()) {
      for (const auto& [key, shard] : *files.weight_map) {
        if (shard == file_name && !stored_names.contains(key)) {
          return absl::FailedPreconditionError(absl::StrCat(name, " lacks ", key, ", which the index puts there"));
        }
      }
    }
  }
  return ComponentWeights(component, std::move(tensors));
}

absl::Status CheckModelIndex(const nlohmann::json& index) {
  constexpr char kClass[] = "StableDiffusionXLPipeline";
  const auto found = index.find("_class_name");
  const std::string name = found != index.end() && found->is_string() ? found->get<std::string>() : "";
  if (name == kClass) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      name.empty() ? "model_index.json has no _class_name"
                   : absl::StrCat("model_index.json is of a ", name, "; only ", kClass, " can be served"));
}

absl::Status CheckTokenizer(const std::string& folder, const std::string& tokenizer) {
  for (const char* name : {"vocab.json", "merges.txt"}) {
    if (!IsFile(absl::StrCat(folder, "/", tokenizer, "/", name))) {
      return absl::FailedPreconditionError(absl::StrCat(tokenizer, "/", name, " is missing"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> ReadAll(const std::string& folder) {
  ABSL_ASSIGN_OR_RETURN(nlohmann::json model_index, ReadJson(folder, "model_index.json"));
  ABSL_RETURN_IF_ERROR(CheckModelIndex(model_index));
  ABSL_ASSIGN_OR_RETURN(nlohmann::json unet_config, ReadJson(folder, "unet/config.json"));
  ABSL_ASSIGN_OR_RETURN(nlohmann::json vae_config, ReadJson(folder, "vae/config.json"));
  ABSL_ASSIGN_OR_RETURN(nlohmann::json text_config, ReadJson(folder, "text_encoder/config.json"));
  ABSL_ASSIGN_OR_RETURN(nlohmann::json text_2_config, ReadJson(folder, "text_encoder_2/config.json"));
  ABSL_ASSIGN_OR_RETURN(nlohmann::json scheduler_config, ReadJson(folder, "scheduler/scheduler_config.json"));
  ABSL_RETURN_IF_ERROR(CheckTokenizer(folder, "tokenizer"));
  ABSL_RETURN_IF_ERROR(CheckTokenizer(folder, "tokenizer_2"));
  Sha256 hash;
  ABSL_ASSIGN_OR_RETURN(ComponentWeights text, ReadComponent(folder, "text_encoder", "model", hash));
  ABSL_ASSIGN_OR_RETURN(ComponentWeights text_2, ReadComponent(folder, "text_encoder_2", "model", hash));
  ABSL_ASSIGN_OR_RETURN(ComponentWeights unet, ReadComponent(folder, "unet", "diffusion_pytorch_model", hash));
  ABSL_ASSIGN_OR_RETURN(ComponentWeights vae, ReadComponent(folder, "vae", "diffusion_pytorch_model", hash));
  return Checkpoint{folder,
                    std::move(model_index),
                    std::move(unet_config),
                    std::move(vae_config),
                    std::move(text_config),
                    std::move(text_2_config),
                    std::move(scheduler_config),
                    absl::StrCat(folder, "/tokenizer"),
                    absl::StrCat(folder, "/tokenizer_2"),
                    std::move(unet),
                    std::move(vae),
                    std::move(text),
                    std::move(text_2),
                    hash.HexDigest()};
}

// "missing 2: a, b"; nothing where there are none.
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
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    missing_.push_back(name);
    return at::zeros(shape);
  }
  at::Tensor tensor = std::move(found->second);
  tensors_.erase(found);
  if (shape.size() == 2 && tensor.sizes() == at::IntArrayRef({shape[0], shape[1], 1, 1})) {
    return tensor.view(shape);
  }
  if (tensor.sizes() != shape) {
    misshapen_.push_back(absl::StrCat(name, " is [", absl::StrJoin(tensor.sizes(), ", "), "], expected [",
                                      absl::StrJoin(shape, ", "), "]"));
    return at::zeros(shape);
  }
  return tensor;
}

void ComponentWeights::Ignore(absl::string_view prefix) {
  absl::erase_if(tensors_, [prefix](const auto& entry) { return absl::StartsWith(entry.first, prefix); });
}

bool ComponentWeights::Has(const std::string& name) const { return tensors_.contains(name); }

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

absl::StatusOr<Checkpoint> ReadCheckpoint(const std::string& folder) {
  absl::StatusOr<Checkpoint> checkpoint = absl::UnknownError("not read");
  const absl::Status status = GuardTorch("loading the checkpoint", [&] {
    checkpoint = ReadAll(folder);
    return checkpoint.status();
  });
  if (!status.ok()) {
    return status;
  }
  return checkpoint;
}

}  // namespace hotlora
