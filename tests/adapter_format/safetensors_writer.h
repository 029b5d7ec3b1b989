#ifndef HOTLORA_TESTS_ADAPTER_FORMAT_SAFETENSORS_WRITER_H_
#define HOTLORA_TESTS_ADAPTER_FORMAT_SAFETENSORS_WRITER_H_

// Makes small safetensors files for tests.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "src/weights/safetensors_file.h"

namespace hotlora {

class SafetensorsWriter {
 public:
  template <typename T>
  SafetensorsWriter& Add(const std::string& name, const char* dtype, std::vector<int64_t> shape,
                         const std::vector<T>& values) {
    const size_t begin = data_.size();
    data_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    header_[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {begin, data_.size()}}};
    return *this;
  }

  // float32, all of one value.
  SafetensorsWriter& Add(const std::string& name, std::vector<int64_t> shape, float value = 0.5f) {
    size_t count = 1;
    for (const int64_t dimension : shape) {
      count *= static_cast<size_t>(dimension);
    }
    return Add(name, "F32", std::move(shape), std::vector<float>(count, value));
  }

  SafetensorsWriter& AddMetadata(const std::string& key, const std::string& value) {
    header_["__metadata__"][key] = value;
    return *this;
  }

  std::string Bytes() const {
    const std::string header = header_.is_null() ? "{}" : header_.dump();
    const uint64_t length = header.size();
    std::string bytes(sizeof(length), '\0');
    std::memcpy(bytes.data(), &length, sizeof(length));
    return bytes + header + data_;
  }

  SafetensorsFile Parse() const {
    const std::string bytes = Bytes();
    const auto* const begin = reinterpret_cast<const std::byte*>(bytes.data());
    return SafetensorsFile::Parse({begin, begin + bytes.size()}).value();
  }

  // Under another name first, as a careful writer does, so that readers see the old file or the
  // new.
  void Save(const std::string& path) const {
    std::ofstream(path + ".part", std::ios::binary) << Bytes();
    std::rename((path + ".part").c_str(), path.c_str());
  }

 private:
  nlohmann::json header_;
  std::string data_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_ADAPTER_FORMAT_SAFETENSORS_WRITER_H_
