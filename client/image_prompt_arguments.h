#ifndef HOTLORA_CLIENT_IMAGE_PROMPT_ARGUMENTS_H_
#define HOTLORA_CLIENT_IMAGE_PROMPT_ARGUMENTS_H_

// The options of `hotlora generate` about image prompts.

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "hotlora/v1/images.pb.h"

namespace CLI {
class App;
}  // namespace CLI

namespace hotlora {

// As given. The server checks the ranges of numbers.
struct ImagePromptOptions {
  std::vector<std::string> prompts, scales, blocks;
};

// Adds the options to the command. Parsing fills `options`.
void AddImagePrompts(CLI::App& app, ImagePromptOptions& options);

// Adds the image prompts to the request. Reads their files. InvalidArgument says which option is wrong.
absl::Status FinishImagePrompts(const ImagePromptOptions& options, v1::GenerateImagesRequest& request);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_IMAGE_PROMPT_ARGUMENTS_H_
