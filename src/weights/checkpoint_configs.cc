#include "src/weights/checkpoint_configs.h"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/base/json_text.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr uintmax_t kMaxJsonBytes = 64 << 20;  // SDXL's own index files have 0.3 MB

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

}  // namespace

bool IsFile(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error);
}

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
  auto json = ParseJsonObject(text);
  if (!json.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(name, " ", json.status().message()));
  }
  return json;
}

absl::StatusOr<CheckpointConfigs> ReadConfigs(const std::string& folder, bool tokenizers_needed) {
  CheckpointConfigs configs;
  ABSL_ASSIGN_OR_RETURN(configs.model_index, ReadJson(folder, "model_index.json"));
  ABSL_RETURN_IF_ERROR(CheckModelIndex(configs.model_index));
  ABSL_ASSIGN_OR_RETURN(configs.unet_config, ReadJson(folder, "unet/config.json"));
  ABSL_ASSIGN_OR_RETURN(configs.vae_config, ReadJson(folder, "vae/config.json"));
  ABSL_ASSIGN_OR_RETURN(configs.text_encoder_config, ReadJson(folder, "text_encoder/config.json"));
  ABSL_ASSIGN_OR_RETURN(configs.text_encoder_2_config, ReadJson(folder, "text_encoder_2/config.json"));
  ABSL_ASSIGN_OR_RETURN(configs.scheduler_config, ReadJson(folder, "scheduler/scheduler_config.json"));
  for (auto [name, target] :
       {std::pair("tokenizer", &configs.tokenizer_folder), {"tokenizer_2", &configs.tokenizer_2_folder}}) {
    const std::string path = absl::StrCat(folder, "/", name);
    std::error_code error;
    if (tokenizers_needed || std::filesystem::exists(path, error)) {
      ABSL_RETURN_IF_ERROR(CheckTokenizer(folder, name));
      *target = path;
    }
  }
  return configs;
}

}  // namespace hotlora
