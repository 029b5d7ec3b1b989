#ifndef HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_
#define HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_

// The nets that the golden data of tests/golden/control were made with: "lines" (with attention), "depth" (without) and
// "union" (six control types). Their weights are seeded random numbers, so the repository holds the names and shapes
// alone, and tests draw the numbers again.

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/sdxl/placed_control_net.h"
#include "src/sdxl/placed_image_prompt.h"
#include "src/tensor/device.h"
#include "tests/golden_support.h"

namespace hotlora {

// The tensors of that net by their names in diffusers, in fp16 as they are stored.
const TensorMap& GoldenControlNet(const std::string& net);

// SHA-256 over the net's tensors in the order of their names.
std::string GoldenControlNetSha256(const std::string& net);

// Writes fp16 and float32 tensors into a safetensors file.
void WriteTensors(const TensorMap& tensors, const std::string& path);

// Makes the folder with the net in diffusers' layout. Returns `folder`.
std::string WriteControlNetFolder(const std::string& net, const std::string& folder);

// Reads a net for the model from such a folder, or from a file with NAME.json beside it if there is one, in memory of
// its own at `place`. Errors of SafetensorsFile and of the network's Stage function.
absl::StatusOr<std::shared_ptr<const PlacedControlNet>> LoadControlNet(const std::string& path, const SdxlConfig& model,
                                                                       ComputePlace place);

// Likewise an image prompt from its file, and an image encoder from its folder.
absl::StatusOr<std::shared_ptr<const PlacedImagePrompt>> LoadImagePrompt(const std::string& path,
                                                                         const SdxlConfig& model, ComputePlace place);
absl::StatusOr<std::shared_ptr<const PlacedImageEncoder>> LoadImageEncoder(const std::string& folder,
                                                                           ComputePlace place);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_
