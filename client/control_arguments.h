#ifndef HOTLORA_CLIENT_CONTROL_ARGUMENTS_H_
#define HOTLORA_CLIENT_CONTROL_ARGUMENTS_H_

// The options of `hotlora generate` about ControlNets.

#include <string>
#include <vector>

#include "absl/status/status.h"

#include "hotlora/v1/images.pb.h"

namespace CLI {
class App;
}  // namespace CLI

namespace hotlora {

// As given. The server checks the ranges of numbers.
struct ControlOptions {
  std::vector<std::string> controls, scales, ranges, types;
};

// Adds the options to the command. Parsing fills `options`.
void AddControls(CLI::App& app, ControlOptions& options);

// Adds the controls to the request. Reads their files. InvalidArgument says which option is wrong.
absl::Status FinishControls(const ControlOptions& options, v1::GenerateImagesRequest& request);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_CONTROL_ARGUMENTS_H_
