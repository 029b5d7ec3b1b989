#include "client/image_prompt_arguments.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include <CLI/CLI.hpp>

#include "client/input_files.h"
#include "client/named_value.h"
#include "src/base/invalid_argument.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr absl::string_view kPrompt = "--image-prompt", kScale = "--image-prompt-scale",
                            kBlocks = "--image-prompt-blocks";
constexpr absl::string_view kPromptForm = "NAME=FILE[,FILE...]", kScaleForm = "NAME=SCALE",
                            kBlocksForm = "NAME=PREFIX:SCALE[,PREFIX:SCALE...]";

absl::Status AddImagePrompt(const std::string& text, v1::GenerateImagesRequest& request) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
  if (parts.first.empty() || parts.second.empty()) {
    return WrongForm(kPrompt, kPromptForm, text);
  }
  v1::ImagePromptRef* const prompt = request.add_image_prompts();
  prompt->set_name(parts.first);
  for (const absl::string_view file : absl::StrSplit(parts.second, ',')) {
    ABSL_ASSIGN_OR_RETURN(*prompt->add_images(), ReadPicture(kPrompt, std::string(file)));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::ImagePromptRef*> FindImagePrompt(absl::string_view flag, const std::string& name,
                                                    v1::GenerateImagesRequest& request) {
  for (v1::ImagePromptRef& prompt : *request.mutable_image_prompts()) {
    if (prompt.name() == name) {
      return &prompt;
    }
  }
  return InvalidArgument(flag, " is for \"", name, "\", but no --image-prompt has that name");
}

absl::Status SetScale(const std::string& text, v1::GenerateImagesRequest& request) {
  ABSL_ASSIGN_OR_RETURN(const NamedValue given, SplitNamed(kScale, kScaleForm, text));
  ABSL_ASSIGN_OR_RETURN(v1::ImagePromptRef* const prompt, FindImagePrompt(kScale, given.name, request));
  double scale = 0;
  if (!absl::SimpleAtod(given.value, &scale)) {
    return WrongForm(kScale, kScaleForm, text);
  }
  if (prompt->has_scale()) {
    return InvalidArgument(kScale, " is given twice for \"", given.name, "\"");
  }
  prompt->set_scale(scale);
  return absl::OkStatus();
}

absl::Status SetBlocks(const std::string& text, v1::GenerateImagesRequest& request) {
  ABSL_ASSIGN_OR_RETURN(const NamedValue given, SplitNamed(kBlocks, kBlocksForm, text));
  ABSL_ASSIGN_OR_RETURN(v1::ImagePromptRef* const prompt, FindImagePrompt(kBlocks, given.name, request));
  return AddBlocks(kBlocks, kBlocksForm, text, given.value, *prompt->mutable_blocks());
}

}  // namespace

void AddImagePrompts(CLI::App& app, ImagePromptOptions& options) {
  app.add_option(
         std::string(kPrompt), options.prompts,
         "NAME=FILE[,FILE...] of an image prompt (IP-Adapter) and the pictures that it sees, up to 4 (repeatable)")
      ->allow_extra_args(false);
  app.add_option(std::string(kScale), options.scales,
                 "NAME=SCALE (repeatable): how strongly an --image-prompt acts, 0 to 4")
      ->allow_extra_args(false);
  app.add_option(std::string(kBlocks), options.blocks,
                 "NAME=PREFIX:SCALE[,PREFIX:SCALE...] (repeatable): scales of an --image-prompt on parts of the UNet, "
                 "such as up_blocks.0.attentions.1")
      ->allow_extra_args(false);
}

absl::Status FinishImagePrompts(const ImagePromptOptions& options, v1::GenerateImagesRequest& request) {
  for (const std::string& prompt : options.prompts) {
    ABSL_RETURN_IF_ERROR(AddImagePrompt(prompt, request));
  }
  for (const std::string& scale : options.scales) {
    ABSL_RETURN_IF_ERROR(SetScale(scale, request));
  }
  for (const std::string& blocks : options.blocks) {
    ABSL_RETURN_IF_ERROR(SetBlocks(blocks, request));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
