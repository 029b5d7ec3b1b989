#include "src/tensor/byte_view.h"

#include <c10/core/TensorImpl.h>

namespace hotlora {

at::Tensor ViewOf(const at::Tensor& memory, int64_t offset, at::ScalarType dtype, at::IntArrayRef shape) {
  auto view = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(memory.storage()), memory.key_set(),
                                                       c10::scalarTypeToTypeMeta(dtype));
  c10::TensorImpl* const impl = view.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(shape);
  impl->set_storage_offset((memory.storage_offset() + offset) / static_cast<int64_t>(c10::elementSize(dtype)));
  return view;
}

}  // namespace hotlora
