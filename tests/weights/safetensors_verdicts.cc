// Says what the reader makes of files: for safetensors_differential_test.py.
//
// Reads frames from standard input, each a little-endian 64-bit length and that many bytes of a safetensors file, and
// answers each with one line of JSON on standard output: {"error": "..."} or {"tensors": [[name, dtype, shape, begin,
// end], ...], "metadata": {...}}, where begin and end are places in the file.

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

nlohmann::json VerdictOn(std::vector<std::byte> bytes) {
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Parse(std::move(bytes));
  if (!file.ok()) {
    return {{"error", std::string(file.status().message())}};
  }
  nlohmann::json verdict = {{"tensors", nlohmann::json::array()}, {"metadata", file->metadata()}};
  for (const StoredTensor& tensor : file->tensors()) {
    verdict["tensors"].push_back({tensor.name, std::string(NameOf(tensor.dtype)), tensor.shape,
                                  file->data_offset() + tensor.begin, file->data_offset() + tensor.end});
  }
  return verdict;
}

int Main() {
  for (uint64_t size = 0; std::cin.read(reinterpret_cast<char*>(&size), sizeof(size));) {
    std::vector<std::byte> bytes(size);
    if (!std::cin.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size))) {
      return 1;
    }
    const auto replace = nlohmann::json::error_handler_t::replace;
    std::cout << VerdictOn(std::move(bytes)).dump(-1, ' ', /*ensure_ascii=*/true, replace) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace hotlora

int main() { return hotlora::Main(); }
