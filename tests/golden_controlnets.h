#ifndef HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_
#define HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_

// The nets that the golden data of tests/golden/control were made with: "lines" (with attention), "depth" (without) and
// "union" (six control types). Their weights are seeded random numbers, so the repository holds the names and shapes
// alone, and tests draw the numbers again.

#include <string>

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

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GOLDEN_CONTROLNETS_H_
