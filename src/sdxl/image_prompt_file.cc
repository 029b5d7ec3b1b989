#include "src/sdxl/image_prompt_file.h"

#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/weights/safetensors_file.h"
#include "src/weights/weight_files.h"

namespace hotlora {
namespace {

absl::StatusOr<ImagePromptFile> ReadOneFile(const std::string& path, const SdxlConfig& model) {
  ModelFiles files;
  files.Add(path);
  ABSL_ASSIGN_OR_RETURN(const SafetensorsFile header, SafetensorsFile::ReadHeader(path));
  ABSL_ASSIGN_OR_RETURN(ImagePromptConfig config, ImagePromptConfigOf(header, model));
  Tensors tensors;
  ABSL_ASSIGN_OR_RETURN(std::string sha256, ReadTensors(path, [&tensors](const std::string& name) -> TensorPlace {
                          return {&tensors, name};
                        }));
  return ImagePromptFile{std::move(config), ComponentWeights("image prompt", std::move(tensors)), std::move(sha256),
                         std::move(files)};
}

}  // namespace

absl::StatusOr<ImagePromptFile> ReadImagePrompt(const std::string& path, const SdxlConfig& model) {
  auto file = ReadOneFile(path, model);
  return file.ok() ? std::move(file) : Prefixed(std::filesystem::path(path).filename().string(), file.status());
}

absl::StatusOr<std::unique_ptr<const LoadedImagePrompt>> LoadImagePrompt(const std::string& path,
                                                                         const SdxlConfig& model, ComputePlace place) {
  return LoadNetwork<ImagePrompt>(
      "loading an image prompt", place, [&] { return ReadImagePrompt(path, model); },
      [&](const ParameterScope& scope, const ImagePromptConfig& config) {
        return ImagePrompt(scope, config, CrossAttentions(model));
      });
}

absl::StatusOr<ImageEncoderFile> ReadImageEncoder(const std::string& folder) {
  constexpr char kPreprocessor[] = "preprocessor_config.json";
  ModelFiles files;
  ABSL_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJson(folder, "config.json", files));
  nlohmann::json preprocessor;
  if (IsFile(absl::StrCat(folder, "/", kPreprocessor))) {
    ABSL_ASSIGN_OR_RETURN(preprocessor, ReadJson(folder, kPreprocessor, files));
  }
  ABSL_ASSIGN_OR_RETURN(ImageEncoderConfig config, ParseImageEncoderConfig(json, preprocessor));
  ABSL_ASSIGN_OR_RETURN(ReadWeights read, ReadComponent(folder, "", "image_encoder", "model"));
  files.Add(read.files);
  Sha256 hash;
  hash.Update(read.sha256_lines.data(), read.sha256_lines.size());
  return ImageEncoderFile{std::move(config), std::move(read.weights), hash.HexDigest(), std::move(files)};
}

absl::StatusOr<std::unique_ptr<const LoadedImageEncoder>> LoadImageEncoder(const std::string& folder,
                                                                           ComputePlace place) {
  return LoadNetwork<ImageEncoder>(
      "loading the image encoder", place, [&] { return ReadImageEncoder(folder); },
      [](const ParameterScope& scope, const ImageEncoderConfig& config) { return ImageEncoder(scope, config); });
}

}  // namespace hotlora
