#include "src/adapters/store_storage.h"

#include <vector>

#include <ATen/ops/empty.h>

namespace hotlora {

StoreStorage::StoreStorage(c10::Device device, uint64_t host_bytes, uint64_t device_bytes)
    : copy_stream_(device, DeviceStream::Priority::kLow),
      host_(static_cast<int64_t>(host_bytes), device),
      device_(at::empty({static_cast<int64_t>(device_bytes)}, at::TensorOptions(at::kByte).device(device))) {
  if (device.is_cpu()) {
    pages_ = std::make_unique<PageReserve>(std::vector<PageReserve::Area>{
        {host_.begin(), host_.bytes()}, {static_cast<char*>(device_.mutable_data_ptr()), device_.numel()}});
  }
}

at::Tensor StoreStorage::HostBlock(uint64_t offset, uint64_t bytes) const {
  NoteUse(kHostArea, offset, bytes);
  return host_.Block(static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
}

absl::Status StoreStorage::RunUpload(absl::string_view what, absl::FunctionRef<absl::Status()> copy) const {
  return copy_stream_.Run(what, copy);
}

void StoreStorage::NoteUse(size_t area, uint64_t offset, uint64_t bytes) const {
  if (pages_ != nullptr) {
    pages_->Use(area, static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
  }
}

}  // namespace hotlora
