#ifndef HOTLORA_TESTS_GOLDEN_SUPPORT_H_
#define HOTLORA_TESTS_GOLDEN_SUPPORT_H_

// Golden tensors for tests: a folder under tests/golden with a manifest.json that names its cases,
// their files and how far each output may be off. Tests run on the device in HOTLORA_TEST_DEVICE
// (cpu, cuda, cuda:N; default cpu).

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/tensor/cuda_library.h"
#include "src/tensor/device.h"
#include "src/weights/safetensors_file.h"
#include "tests/golden_path.h"
#include "tests/margin.h"

namespace hotlora {

inline c10::Device TestDevice() {
  const char* device = std::getenv("HOTLORA_TEST_DEVICE");
  return c10::Device(device == nullptr || *device == '\0' ? "cpu" : device);
}

// Where a test computes, as the server would with that dtype (SetFloat32Precision). Also keeps
// to one CPU thread: on a busy machine two that wait for each other are ten times slower.
inline ComputePlace TestPlace(c10::ScalarType dtype = c10::ScalarType::Float) {
  at::set_num_threads(1);
  SetFloat32Precision(dtype);
  const c10::Device resolved = TestDevice();
  if (resolved.is_cuda()) {
    TORCH_CHECK(LoadCuda().ok(), LoadCuda().message());
  }
  return {resolved, dtype};
}

using TensorMap = std::map<std::string, at::Tensor>;

// All tensors of a safetensors file, on the CPU. Throws where the file is unsound or has another
// dtype than these tests use.
inline TensorMap LoadTensors(const std::string& path) {
  absl::StatusOr<SafetensorsFile> file = SafetensorsFile::ReadFile(path, uint64_t{1} << 30);
  TORCH_CHECK(file.ok(), path, ": ", file.status().ToString());
  const std::map<StoredDtype, at::ScalarType> dtypes = {
      {StoredDtype::kF32, at::kFloat}, {StoredDtype::kF16, at::kHalf},   {StoredDtype::kBF16, at::kBFloat16},
      {StoredDtype::kI64, at::kLong},  {StoredDtype::kF64, at::kDouble}, {StoredDtype::kU8, at::kByte}};
  TensorMap tensors;
  for (const StoredTensor& stored : file->tensors()) {
    at::Tensor tensor = at::empty(stored.shape, dtypes.at(stored.dtype));
    std::memcpy(tensor.mutable_data_ptr(), file->Data(stored), stored.bytes());
    tensors[stored.name] = tensor;
  }
  return tensors;
}

class GoldenFolder {
 public:
  explicit GoldenFolder(const std::string& name) : name_(name) {
    std::ifstream stream(GoldenPath(name + "/manifest.json"));
    manifest_ = nlohmann::json::parse(stream);
  }

  // Names of the cases that begin with `prefix`, in the manifest's order.
  std::vector<std::string> Cases(const std::string& prefix) const {
    std::vector<std::string> names;
    for (const nlohmann::json& entry : manifest_.at("cases")) {
      const std::string name = entry.at("name");
      if (name.rfind(prefix, 0) == 0) {
        names.push_back(name);
      }
    }
    return names;
  }

  TensorMap Load(const std::string& case_name) const {
    return LoadTensors(GoldenPath(name_ + "/" + Case(case_name).at("file").get<std::string>()));
  }

  // The largest absolute difference allowed for that output, on the CPU.
  double Tolerance(const std::string& case_name, const std::string& output) const {
    return Case(case_name).at("tolerance").at(output).at("absolute");
  }

 private:
  const nlohmann::json& Case(const std::string& case_name) const {
    for (const nlohmann::json& entry : manifest_.at("cases")) {
      if (entry.at("name") == case_name) {
        return entry;
      }
    }
    throw std::out_of_range("no golden case " + case_name);
  }

  std::string name_;
  nlohmann::json manifest_;
};

// Expects equal shapes and |actual - expected| <= tolerance everywhere; says by how much it is off. The tolerance is
// the CPU's. CUDA's is ten times as much, but for bytes of pixels: its convolutions may add in another order and by
// other algorithms (Winograd).
inline void ExpectWithin(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                         const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const at::Tensor difference = (actual.cpu().to(at::kDouble) - expected.cpu().to(at::kDouble)).abs();
  const double worst = difference.max().item<double>();
  const bool wider = TestDevice().is_cuda() && expected.scalar_type() != at::kByte;
  ExpectError(worst, wider ? 10 * tolerance : tolerance, what);
}

// ||actual - expected|| / ||expected||, in double.
inline double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor reference = expected.cpu().to(at::kDouble);
  return ((actual.cpu().to(at::kDouble) - reference).norm() / reference.norm()).item<double>();
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GOLDEN_SUPPORT_H_
