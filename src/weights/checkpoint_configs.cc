#include "src/weights/checkpoint_configs.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/base/bounded_read.h"
#include "src/base/json_text.h"
#include "src/base/status_macros.h"
#include "src/weights/tokenizer_files.h"

namespace hotlora {
namespace {

constexpr size_t kMaxJsonBytes = 64 << 20;  // SDXL's own index files have 0.3 MB

// Pipelines of the same modules: a folder's weights do not depend on which of them saved it.
constexpr absl::string_view kPipelines[] = {"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
                                            "StableDiffusionXLInpaintPipeline"};

absl::Status CheckModelIndex(const nlohmann::json& index) {
  const auto refiner = index.find("requires_aesthetics_score");
  if (refiner != index.end() && !refiner->is_boolean() && !refiner->is_null()) {
    return absl::FailedPreconditionError(absl::StrCat("model_index.json: requires_aesthetics_score is ",
                                                      JsonExcerpt(*refiner), ", must be true or false"));
  }
  if (refiner != index.end() && *refiner == true) {
    return absl::FailedPreconditionError(
        "model_index.json is of an SDXL refiner (requires_aesthetics_score is true); only SDXL base models can be "
        "served");
  }
  const auto name = index.find("_class_name");
  if (name == index.end()) {
    return absl::FailedPreconditionError("model_index.json: _class_name is missing");
  }
  if (name->is_string() && absl::c_linear_search(kPipelines, name->get_ref<const std::string&>())) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("model_index.json: _class_name is ", JsonExcerpt(*name),
                                                    "; can be served: ", absl::StrJoin(kPipelines, ", ")));
}

absl::Status CheckTokenizer(const std::string& folder, const std::string& tokenizer) {
  const auto exists = [&](const char* name) { return IsFile(absl::StrCat(folder, "/", tokenizer, "/", name)); };
  for (const char* name : {tokenizer_file::kVocabulary, tokenizer_file::kMerges}) {
    if (!exists(name) && !exists(tokenizer_file::kWhole)) {
      return absl::FailedPreconditionError(
          absl::StrCat(tokenizer, "/", name, " is missing, and ", tokenizer, "/", tokenizer_file::kWhole, " too"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool IsFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

absl::StatusOr<nlohmann::json> ReadJson(const std::string& folder, const std::string& name, ModelFiles& files) {
  const std::string path = absl::StrCat(folder, "/", name);
  files.Add(path);
  if (!IsFile(path)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " is missing"));
  }
  const absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxJsonBytes);
  if (!text.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(name, " ", text.status().message()));
  }
  auto json = ParseJsonObject(*text);
  if (!json.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(name, " ", json.status().message()));
  }
  return json;
}

absl::StatusOr<CheckpointConfigs> ReadConfigs(const std::string& folder, bool tokenizers_needed) {
  CheckpointConfigs configs;
  ABSL_ASSIGN_OR_RETURN(configs.model_index, ReadJson(folder, "model_index.json", configs.files));
  ABSL_RETURN_IF_ERROR(CheckModelIndex(configs.model_index));
  ABSL_ASSIGN_OR_RETURN(configs.unet_config, ReadJson(folder, "unet/config.json", configs.files));
  ABSL_ASSIGN_OR_RETURN(configs.vae_config, ReadJson(folder, "vae/config.json", configs.files));
  ABSL_ASSIGN_OR_RETURN(configs.text_encoder_config, ReadJson(folder, "text_encoder/config.json", configs.files));
  ABSL_ASSIGN_OR_RETURN(configs.text_encoder_2_config, ReadJson(folder, "text_encoder_2/config.json", configs.files));
  ABSL_ASSIGN_OR_RETURN(configs.scheduler_config, ReadJson(folder, "scheduler/scheduler_config.json", configs.files));
  for (auto [name, target] :
       {std::pair("tokenizer", &configs.tokenizer_folder), {"tokenizer_2", &configs.tokenizer_2_folder}}) {
    const std::string path = absl::StrCat(folder, "/", name);
    std::error_code error;
    if (tokenizers_needed || std::filesystem::exists(path, error)) {
      ABSL_RETURN_IF_ERROR(CheckTokenizer(folder, name));
      for (const char* const file : tokenizer_file::kAll) {
        configs.files.Add(absl::StrCat(path, "/", file));
      }
      *target = path;
    }
  }
  return configs;
}

}  // namespace hotlora
