#ifndef HOTLORA_TESTS_PIPELINE_GOLDEN_REQUEST_H_
#define HOTLORA_TESTS_PIPELINE_GOLDEN_REQUEST_H_

// Golden cases of whole runs as requests.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "src/image/rgb_image.h"
#include "src/request/image_request.h"

namespace hotlora {

// A picture as the golden runs began with: resized to the request's size beforehand.
std::string GoldenPicture(const std::string& name, uint32_t width, uint32_t height);

// What a case of a manifest asks for, adapters apart.
ImageRequest MakeGoldenRequest(const nlohmann::json& golden);

// The whole runs among the cases of that folder's manifest.
std::vector<nlohmann::json> GoldenRuns(const std::string& folder);

// The adapters of a case, each with its weight.
std::vector<std::pair<std::string, double>> GoldenAdapters(const nlohmann::json& golden);

// NAME of "adapters/files/NAME.safetensors", as cases name adapters.
std::string AdapterName(const std::string& file);

// [height, width, 3], bytes, of an image that lives longer.
at::Tensor Pixels(const RgbImage& image);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_PIPELINE_GOLDEN_REQUEST_H_
