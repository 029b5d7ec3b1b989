#include "src/adapter_format/parsed_delta.h"

#include <cmath>

namespace hotlora {

std::vector<size_t> ParsedFactor::Tensors() const {
  std::vector<size_t> tensors;
  for (const std::optional<size_t>& tensor : {whole, down, up, mid}) {
    if (tensor.has_value()) {
      tensors.push_back(*tensor);
    }
  }
  return tensors;
}

std::vector<size_t> ParsedDelta::Tensors() const {
  std::vector<size_t> tensors = first.Tensors();
  for (const size_t tensor : second.Tensors()) {
    tensors.push_back(tensor);
  }
  for (const std::optional<size_t>& tensor : {rescale, magnitude}) {
    if (tensor.has_value()) {
      tensors.push_back(*tensor);
    }
  }
  return tensors;
}

int64_t OftBlockSize(int64_t numbers) {
  const int64_t size = std::llround((1.0 + std::sqrt(1.0 + 8.0 * static_cast<double>(numbers))) / 2.0);
  return numbers > 0 && numbers < (int64_t{1} << 40) && size * (size - 1) / 2 == numbers ? size : 0;
}

}  // namespace hotlora
