#include "src/sdxl/controlnet_file.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/weights/model_unsupported.h"
#include "src/weights/safetensors_file.h"
#include "src/weights/sgm_names.h"
#include "src/weights/single_file_header.h"
#include "src/weights/weight_files.h"

namespace hotlora {
namespace {

constexpr char kComponent[] = "controlnet";
constexpr char kPrefix[] = "control_model.";

// How a single file names its tensors.
struct FileNames {
  std::string prefix;  // before each name
  ComponentWeights::StoredNames stored_name;

  std::string operator()(const std::string& name) const {
    const std::string translated = stored_name ? stored_name(name) : name;
    return absl::StrCat(prefix, translated.empty() ? name : translated);
  }
};

// Names alone tell the kind of a file.
absl::StatusOr<FileNames> NamesOf(const SafetensorsFile& header, int layers_per_block) {
  FileNames names;
  if (header.Find("lora_controlnet") != nullptr) {
    return ModelUnsupported(
        "the file is a control LoRA, which needs its base model's weights; a whole ControlNet is needed");
  }
  if (header.Find("controlnet_cond_embedding.conv_in.weight") == nullptr) {
    names.prefix = HasPrefix(header, kPrefix) ? kPrefix : "";
    names.stored_name = [layers_per_block](const std::string& name) {
      return SgmControlNetParameter(name, layers_per_block);
    };
    if (header.Find(names("controlnet_cond_embedding.conv_in.weight")) == nullptr) {
      return ModelUnsupported(
          "the file is not a ControlNet: it has neither controlnet_cond_embedding.conv_in.weight nor "
          "input_hint_block.0.weight");
    }
  }
  if (const std::string needed = names("add_embedding.linear_1.weight"); header.Find(needed) == nullptr) {
    return ModelUnsupported(absl::StrCat("the file is a ControlNet for Stable Diffusion 1 or 2, as it has no ", needed,
                                         "; only those for SDXL can be used"));
  }
  return names;
}

absl::StatusOr<ControlNetFile> ReadFolder(const std::string& folder) {
  ModelFiles files;
  ABSL_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJson(folder, "config.json", files));
  ABSL_ASSIGN_OR_RETURN(ControlNetConfig config, ParseControlNetConfig("config.json", json));
  ABSL_ASSIGN_OR_RETURN(ReadWeights read, ReadComponent(folder, "", kComponent, "diffusion_pytorch_model"));
  files.Add(read.files);
  Sha256 hash;
  hash.Update(read.sha256_lines.data(), read.sha256_lines.size());
  return ControlNetFile{std::move(config), std::move(read.weights), hash.HexDigest(), std::move(files)};
}

absl::StatusOr<ControlNetFile> ReadOneFile(const std::filesystem::path& path, const SdxlConfig& model) {
  ModelFiles files;
  files.Add(path);
  ABSL_ASSIGN_OR_RETURN(const SafetensorsFile header, SafetensorsFile::ReadHeader(path));
  ABSL_ASSIGN_OR_RETURN(const FileNames names, NamesOf(header, static_cast<int>(model.unet.layers_per_block)));
  ControlNetConfig config = ControlNetConfigOf(
      [&](const std::string& name) {
        const StoredTensor* const tensor = header.Find(names(name));
        return tensor == nullptr ? nullptr : &tensor->shape;
      },
      model.unet);
  const std::string beside = absl::StrCat(path.stem().string(), ".json");
  if (IsFile(path.parent_path() / beside)) {
    ABSL_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJson(path.parent_path(), beside, files));
    ABSL_ASSIGN_OR_RETURN(config, ParseControlNetConfig(beside, json));
  }
  ABSL_RETURN_IF_ERROR(CheckFits(config, model));  // before the weights are read
  Tensors tensors;
  ABSL_ASSIGN_OR_RETURN(std::string sha256, ReadTensors(path, [&tensors](const std::string& name) -> TensorPlace {
                          return {&tensors, name};
                        }));
  return ControlNetFile{std::move(config), ComponentWeights(kComponent, std::move(tensors), names), std::move(sha256),
                        std::move(files)};
}

}  // namespace

absl::StatusOr<ControlNetFile> ReadControlNet(const std::string& path, const SdxlConfig& model) {
  const std::filesystem::path place(path);
  std::error_code error;
  if (!std::filesystem::is_directory(place, error)) {
    auto file = ReadOneFile(place, model);
    return file.ok() ? std::move(file) : Prefixed(place.filename().string(), file.status());
  }
  ABSL_ASSIGN_OR_RETURN(ControlNetFile file, ReadFolder(path));
  ABSL_RETURN_IF_ERROR(CheckFits(file.config, model));
  return file;
}

absl::StatusOr<std::unique_ptr<const LoadedControlNet>> LoadControlNet(const std::string& path, const SdxlConfig& model,
                                                                       ComputePlace place) {
  return LoadNetwork<ControlNet>(
      "loading a ControlNet", place, [&] { return ReadControlNet(path, model); },
      [](const ParameterScope& scope, const ControlNetConfig& config) { return ControlNet(scope, config); });
}

}  // namespace hotlora
