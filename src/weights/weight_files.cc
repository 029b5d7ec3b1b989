#include "src/weights/weight_files.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <ATen/ops/empty.h>

#include "src/base/status_macros.h"
#include "src/weights/leftovers.h"
#include "src/weights/safetensors_file.h"
#include "src/weights/sgm_names.h"
#include "src/weights/stored_views.h"
#include "src/weights/weight_index.h"

namespace hotlora {
namespace {

// The weight files of one component, and which tensor is in which if an index says so.
struct WeightFiles {
  std::vector<std::string> names;
  std::optional<std::map<std::string, std::string>> weight_map;
};

absl::StatusOr<WeightFiles> ReadIndex(const std::string& folder, const std::string& name, ModelFiles& read) {
  ABSL_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJson(folder, name, read));
  absl::StatusOr<WeightIndex> parsed = ParseWeightIndex(index);
  if (!parsed.ok()) {
    return Prefixed(name, parsed.status());
  }
  return WeightFiles{std::move(parsed->shards), std::move(parsed->weight_map)};
}

absl::StatusOr<WeightFiles> FindWeightFiles(const std::string& folder, const std::string& prefix,
                                            const std::string& stem, ModelFiles& read) {
  const auto exists = [&](const std::string& name) { return IsFile(absl::StrCat(folder, "/", prefix, name)); };
  for (const absl::string_view variant : kWeightVariants) {
    const std::string single = absl::StrCat(stem, variant, ".safetensors");
    if (exists(single)) {
      return WeightFiles{{single}, std::nullopt};
    }
    for (const std::string& index : IndexNames(stem, variant)) {
      if (exists(index)) {
        return ReadIndex(folder, absl::StrCat(prefix, index), read);
      }
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat(prefix, stem, ".safetensors is missing, and its .fp32, .fp16, .bf16 and sharded spellings too"));
}

}  // namespace

absl::Status Prefixed(absl::string_view name, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(name, ": ", status.message()));
}

std::string TextEncoderKey(absl::string_view stored) {
  // transformers 5 writes CLIPTextModel without the prefix that all published files have.
  for (const char* part : {"embeddings.", "encoder.", "final_layer_norm."}) {
    if (absl::StartsWith(stored, part)) {
      return absl::StrCat("text_model.", stored);
    }
  }
  return std::string(stored);
}

std::string VaeKey(absl::string_view stored) {
  std::string key(stored);
  for (const auto& [old, now] : {
           std::pair("mid_block.attentions.0.query.", "mid_block.attentions.0.to_q."),
           {"mid_block.attentions.0.key.", "mid_block.attentions.0.to_k."},
           {"mid_block.attentions.0.value.", "mid_block.attentions.0.to_v."},
           {"mid_block.attentions.0.proj_attn.", "mid_block.attentions.0.to_out.0."},
           {"mid.attn_1.to_q.", "mid.attn_1.q."},
           {"mid.attn_1.to_k.", "mid.attn_1.k."},
           {"mid.attn_1.to_v.", "mid.attn_1.v."},
           {"mid.attn_1.to_out.0.", "mid.attn_1.proj_out."},
       }) {
    if (const size_t found = key.find(old); found != std::string::npos) {
      return key.replace(found, std::string(old).size(), now);
    }
  }
  return key;
}

absl::StatusOr<std::string> ReadTensors(const std::string& path,
                                        absl::FunctionRef<TensorPlace(const std::string& name)> place_of) {
  const auto room = [&](const StoredTensor& stored) -> absl::StatusOr<void*> {
    TensorPlace place = place_of(stored.name);
    if (place.tensors == nullptr) {
      return nullptr;
    }
    const std::optional<c10::ScalarType> dtype = ScalarTypeOf(stored.dtype);
    if (!dtype.has_value()) {
      return absl::FailedPreconditionError(
          absl::StrCat("has ", stored.name, " in dtype ", NameOf(stored.dtype), "; allowed are F64, F32, F16, BF16"));
    }
    at::Tensor tensor = at::empty(stored.shape, at::TensorOptions(c10::kCPU).dtype(*dtype));
    void* const data = tensor.mutable_data_ptr();
    if (!place.tensors->emplace(place.key, std::move(tensor)).second) {
      return absl::FailedPreconditionError(absl::StrCat("has ", place.key, " a second time"));
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

absl::StatusOr<ReadWeights> ReadComponent(const std::string& folder, const std::string& prefix,
                                          const std::string& component, const std::string& stem) {
  const std::string inside = prefix.empty() ? "" : absl::StrCat(prefix, "/");
  ModelFiles read;
  ABSL_ASSIGN_OR_RETURN(const WeightFiles files, FindWeightFiles(folder, inside, stem, read));
  LeftoverCount leftovers;
  Tensors tensors;
  std::string lines;
  for (const std::string& file_name : files.names) {
    const std::string name = absl::StrCat(inside, file_name);
    absl::flat_hash_set<std::string> stored_names;
    read.Add(absl::StrCat(folder, "/", name));
    const auto sha256 = ReadTensors(absl::StrCat(folder, "/", name), [&](const std::string& stored) -> TensorPlace {
      stored_names.insert(stored);
      if (IsLeftoverOfFolder(component, stored)) {
        leftovers.Add(stored);
        return {};
      }
      return {&tensors, stem == "model" ? TextEncoderKey(stored) : component == "vae" ? VaeKey(stored) : stored};
    });
    if (absl::IsNotFound(sha256.status())) {
      return absl::FailedPreconditionError(absl::StrCat(name, " is missing, though the index names it"));
    }
    if (!sha256.ok()) {
      return Prefixed(name, sha256.status());
    }
    absl::StrAppend(&lines, *sha256, "\n");
    if (files.weight_map.has_value()) {
      for (const auto& [key, shard] : *files.weight_map) {
        if (shard == file_name && !stored_names.contains(key)) {
          return absl::FailedPreconditionError(absl::StrCat(name, " lacks ", key, ", which the index puts there"));
        }
      }
    }
  }
  leftovers.Log(component);
  return ReadWeights{ComponentWeights(component, std::move(tensors)), std::move(lines), std::move(read)};
}

ComponentWeights SgmVae(Tensors tensors, const nlohmann::json& vae_config) {
  const auto channels = vae_config.find("block_out_channels");
  const int levels = channels != vae_config.end() && channels->is_array() ? static_cast<int>(channels->size()) : 0;
  return ComponentWeights("vae", std::move(tensors),
                          [levels](const std::string& name) { return SgmVaeParameter(name, levels); });
}

absl::StatusOr<ReadWeights> ReadOtherVae(const std::string& path, nlohmann::json& config) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    ModelFiles files;
    auto json = ReadJson(path, "config.json", files);
    auto read = json.ok() ? ReadComponent(path, "", "vae", "diffusion_pytorch_model") : json.status();
    if (!read.ok()) {
      return Prefixed(path, read.status());
    }
    config = *std::move(json);
    read->files.Add(files);
    return read;
  }
  ModelFiles files;
  files.Add(path);
  const auto header = SafetensorsFile::ReadHeader(path);
  if (!header.ok()) {
    return Prefixed(path, header.status());
  }
  const bool whole_sdxl = std::any_of(header->tensors().begin(), header->tensors().end(), [](const auto& tensor) {
    return absl::StartsWith(tensor.name, "conditioner.embedders.");
  });
  Tensors tensors;
  LeftoverCount leftovers;
  bool sgm = false;
  const auto sha256 = ReadTensors(path, [&](const std::string& stored) -> TensorPlace {
    absl::string_view key = stored;
    if (!absl::ConsumePrefix(&key, "first_stage_model.")) {
      absl::ConsumePrefix(&key, "vae.");
    }
    sgm |= absl::StartsWith(key, "decoder.mid.");
    const bool of_another_part = whole_sdxl && !absl::StartsWith(stored, "first_stage_model.");
    if (of_another_part || IsLeftoverOfVae(stored)) {
      leftovers.Add(stored);
      return {};
    }
    return {&tensors, VaeKey(key)};
  });
  if (!sha256.ok()) {
    return Prefixed(path, sha256.status());
  }
  leftovers.Log(path);
  return ReadWeights{sgm ? SgmVae(std::move(tensors), config) : ComponentWeights("vae", std::move(tensors)),
                     absl::StrCat(*sha256, "\n"), std::move(files)};
}

}  // namespace hotlora
