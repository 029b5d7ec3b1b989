#ifndef HOTLORA_SRC_TENSOR_HOST_SLAB_H_
#define HOTLORA_SRC_TENSOR_HOST_SLAB_H_

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hotlora {

// One storage in the host's memory that is given out in blocks, so that what comes and goes in it allocates nothing.
//
// For the CPU's networks only addresses are taken at first: a page comes when it is first written, or before
// (page_reserve.h), and stays. The allocator's figures (memory_stats.h) count the blocks that live. For a GPU's it is
// pinned, whole, from the start. LibTorch rounds that up to a power of two.
//
// Threads  immutable, thread-safe; blocks may outlive it
// Errors   throws c10::OutOfMemoryError
class HostSlab {
 public:
  HostSlab(int64_t bytes, c10::Device device);

  int64_t bytes() const { return bytes_; }

  // The first address; nullptr if the memory is pinned.
  char* begin() const { return mapped_.get(); }

  // The bytes [offset, offset + bytes), uint8. REQUIRES: they are inside, and no other block that lives has any of
  // them.
  at::Tensor Block(int64_t offset, int64_t bytes) const;

 private:
  const int64_t bytes_;
  std::shared_ptr<char> mapped_;  // for the CPU
  at::Tensor pinned_;             // for a GPU
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_HOST_SLAB_H_
