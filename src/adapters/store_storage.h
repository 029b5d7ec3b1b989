#ifndef HOTLORA_SRC_ADAPTERS_STORE_STORAGE_H_
#define HOTLORA_SRC_ADAPTERS_STORE_STORAGE_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include "src/tensor/device_stream.h"
#include "src/tensor/host_slab.h"
#include "src/tensor/page_reserve.h"

namespace hotlora {

// The two storages of a StoreMemory, and the way from the one to the other.
//
// Threads  thread-safe
// Errors   throws c10::OutOfMemoryError
class StoreStorage {
 public:
  StoreStorage(c10::Device device, uint64_t host_bytes, uint64_t device_bytes);

  uint64_t host_bytes() const { return static_cast<uint64_t>(host_.bytes()); }
  uint64_t device_bytes() const { return static_cast<uint64_t>(device_.numel()); }

  // A block of the host's storage, which is about to be written.
  at::Tensor HostBlock(uint64_t offset, uint64_t bytes) const;

  // The device's storage, uint8.
  const at::Tensor& device() const { return device_; }
  // A block of it is about to be written.
  void UseDevice(uint64_t offset, uint64_t bytes) const { NoteUse(kDeviceArea, offset, bytes); }

  // Runs `copy` as DeviceStream::Run does, on a stream of its own, so that no upload waits for a step.
  absl::Status RunUpload(absl::string_view what, absl::FunctionRef<absl::Status()> copy) const;

 private:
  static constexpr size_t kHostArea = 0, kDeviceArea = 1;  // of pages_

  void NoteUse(size_t area, uint64_t offset, uint64_t bytes) const;

  const DeviceStream copy_stream_;
  const HostSlab host_;
  const at::Tensor device_;
  std::unique_ptr<PageReserve> pages_;  // on the CPU; ends before the storages
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_STORE_STORAGE_H_
