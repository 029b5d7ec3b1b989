#ifndef HOTLORA_CLIENT_GENERATE_ARGUMENTS_H_
#define HOTLORA_CLIENT_GENERATE_ARGUMENTS_H_

// The command line of `hotlora generate`.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/arguments.h"
#include "client/control_arguments.h"
#include "client/image_prompt_arguments.h"

namespace CLI {
class App;
}  // namespace CLI

namespace hotlora {

// The options of `hotlora generate` as given, before they become a message. The server checks the ranges of numbers, so
// only their form is checked here.
struct GenerateOptions {
  std::string prompt;
  std::optional<std::string> negative, prompt_2, negative_2;
  std::vector<std::string> adapters, adapter_ranges, adapter_blocks, embeddings;
  std::optional<uint32_t> width, height, steps, images, clip_skip, quality;
  std::optional<double> strength, guidance, guidance_rescale, guidance_start, guidance_end, eta;
  std::optional<double> hires_scale, hires_strength;
  std::optional<uint32_t> hires_steps;
  std::optional<uint64_t> seed;
  std::optional<int32_t> priority;
  bool weighted = false, long_prompts = false, lora_tags = false;
  std::string init, mask;
  ControlOptions controls;
  ImagePromptOptions image_prompts;
  std::optional<uint32_t> preview_every;
  std::string sampler, schedule, format, request_id;
};

// Adds the options to the command. Parsing fills `options`, and the files of `arguments` that are written.
void AddGenerate(CLI::App& app, GenerateOptions& options, Arguments& arguments);

// Fills the request of `arguments` from the options that were parsed. Reads the files of --init, --mask, --control and
// --image-prompt.
// InvalidArgument says which option is wrong.
absl::Status FinishGenerate(const GenerateOptions& options, Arguments& arguments);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_GENERATE_ARGUMENTS_H_
