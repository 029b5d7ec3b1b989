#ifndef HOTLORA_SRC_WEIGHTS_STORED_VIEWS_H_
#define HOTLORA_SRC_WEIGHTS_STORED_VIEWS_H_

#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "src/weights/safetensors_file.h"

namespace hotlora {

// The dtype of weights, F64, F32, F16 or BF16, as LibTorch's; nothing for others.
std::optional<c10::ScalarType> ScalarTypeOf(StoredDtype dtype);

// Makes tensors of the bytes of a file in memory, which outlives them; they are never written to.
// REQUIRES: the file has a tensor, and the dtype of each that is asked for is one of weights.
class StoredViews {
 public:
  explicit StoredViews(const SafetensorsFile& file);

  // The tensor as `shape`, of as many elements: a view of the file's bytes if they are aligned, else a copy.
  at::Tensor View(const StoredTensor& stored, at::IntArrayRef shape) const;
  at::Tensor View(const StoredTensor& stored) const { return View(stored, stored.shape); }

 private:
  const SafetensorsFile& file_;
  // The whole file. Its own first byte is aligned for every dtype, as where its data begin need not be.
  const at::Tensor bytes_;
};

// Views of the file's tensors by their names, without those that are `passed_over`. FailedPrecondition if one has
// another dtype than F64, F32, F16, BF16. The file outlives them.
absl::StatusOr<absl::flat_hash_map<std::string, at::Tensor>> ViewTensors(
    const SafetensorsFile& file,
    absl::FunctionRef<bool(absl::string_view name)> passed_over = [](absl::string_view) { return false; });

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_STORED_VIEWS_H_
