#include "src/tensor/host_slab.h"

#include <sys/mman.h>

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

// Without a reserve: the budget may be more than what the machine has free now. Not from the allocator, whose memory
// tools would look at every byte of it.
std::shared_ptr<char> MapAddresses(int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  void* const begin =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, /*fd=*/-1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, begin != MAP_FAILED, "cannot reserve ", bytes, " bytes of the host's memory");
  return {static_cast<char*>(begin), [size](char* mapped) { munmap(mapped, size); }};
}

}  // namespace

HostSlab::HostSlab(int64_t bytes, c10::Device device) : bytes_(bytes) {
  if (device.is_cpu()) {
    mapped_ = bytes > 0 ? MapAddresses(bytes) : nullptr;
  } else {
    pinned_ = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  }
}

at::Tensor HostSlab::Block(int64_t offset, int64_t bytes) const {
  return pinned_.defined() ? pinned_.narrow(0, offset, bytes) : CountedView(mapped_, offset, bytes);
}

}  // namespace hotlora
