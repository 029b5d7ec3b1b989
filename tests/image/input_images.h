#ifndef HOTLORA_TESTS_IMAGE_INPUT_IMAGES_H_
#define HOTLORA_TESTS_IMAGE_INPUT_IMAGES_H_

// The files under tests/golden/input_images.

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/image/rgb_image.h"
#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"

namespace hotlora {

inline std::string InputImagePath(const std::string& name) { return GoldenPath("input_images/" + name); }

inline std::string InputImage(const std::string& name) {
  std::ifstream file(InputImagePath(name), std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline nlohmann::json InputImagesManifest() {
  std::ifstream file(InputImagePath("manifest.json"));
  return nlohmann::json::parse(file);
}

// What Pillow made: pixels [height, width, 3], or [height, width] of one byte each.
inline RgbImage ExpectedImage(const std::string& name) {
  static const auto file = SafetensorsFile::ReadFile(InputImagePath("expected.safetensors"), 1 << 24);
  const StoredTensor* const tensor = file.ok() ? file->Find(name) : nullptr;
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) {
    return {};
  }
  const auto* const data = static_cast<const uint8_t*>(static_cast<const void*>(file->Data(*tensor)));
  return {static_cast<uint32_t>(tensor->shape[1]), static_cast<uint32_t>(tensor->shape[0]),
          std::vector<uint8_t>(data, data + tensor->bytes())};
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_IMAGE_INPUT_IMAGES_H_
