#include "src/weights/stored_views.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include "src/tensor/byte_view.h"

namespace hotlora {
namespace {

at::Tensor BytesOf(const SafetensorsFile& file) {
  const StoredTensor& first = file.tensors().front();
  const std::byte* const begin = file.Data(first) - first.begin - file.data_offset();
  return at::from_blob(const_cast<std::byte*>(begin), {static_cast<int64_t>(file.file_bytes())}, at::kByte);
}

}  // namespace

std::optional<c10::ScalarType> ScalarTypeOf(StoredDtype dtype) {
  switch (dtype) {
    case StoredDtype::kF64:
      return c10::kDouble;
    case StoredDtype::kF32:
      return c10::kFloat;
    case StoredDtype::kF16:
      return c10::kHalf;
    case StoredDtype::kBF16:
      return c10::kBFloat16;
    default:
      return std::nullopt;
  }
}

StoredViews::StoredViews(const SafetensorsFile& file) : file_(file), bytes_(BytesOf(file)) {}

at::Tensor StoredViews::View(const StoredTensor& stored, at::IntArrayRef shape) const {
  const at::ScalarType dtype = *ScalarTypeOf(stored.dtype);
  const std::byte* const data = file_.Data(stored);
  if (reinterpret_cast<uintptr_t>(data) % SizeOf(stored.dtype) == 0) {
    return ViewOf(bytes_, data - static_cast<const std::byte*>(bytes_.const_data_ptr()), dtype, shape);
  }
  at::Tensor tensor = at::empty(shape, dtype);
  std::memcpy(tensor.mutable_data_ptr(), data, stored.bytes());
  return tensor;
}

absl::StatusOr<absl::flat_hash_map<std::string, at::Tensor>> ViewTensors(
    const SafetensorsFile& file, absl::FunctionRef<bool(absl::string_view)> passed_over) {
  absl::flat_hash_map<std::string, at::Tensor> tensors;
  if (file.tensors().empty()) {
    return tensors;
  }
  const StoredViews views(file);
  for (const StoredTensor& stored : file.tensors()) {
    if (passed_over(stored.name)) {
      continue;
    }
    if (!ScalarTypeOf(stored.dtype).has_value()) {
      return absl::FailedPreconditionError(
          absl::StrCat("has ", stored.name, " in dtype ", NameOf(stored.dtype), "; allowed are F64, F32, F16, BF16"));
    }
    tensors.emplace(stored.name, views.View(stored));
  }
  return tensors;
}

}  // namespace hotlora
