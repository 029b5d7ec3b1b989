#ifndef HOTLORA_SRC_TENSOR_AVAILABLE_MEMORY_H_
#define HOTLORA_SRC_TENSOR_AVAILABLE_MEMORY_H_

#include <cstdint>
#include <string>

#include <c10/core/Device.h>

namespace hotlora {

// Bytes that this process can still allocate on the host: the least of
//   - RLIMIT_AS minus the address space in use
//   - of its memory cgroup and each one above it (version 2 or 1) the limit minus what is in use, where page cache
//     that can be dropped at once (inactive_file) counts as free
//   - MemAvailable of the machine, and with strict overcommit (vm.overcommit_memory = 2) what may still be promised
// A limit that cannot be read does not count; without any it is the largest int64_t. At least 0. What malloc keeps for
// later counts as in use. Takes some tens of microseconds. Thread-safe.
//
// `root` is put before /proc and /sys, for tests.
int64_t AvailableHostMemory(const std::string& root = "");

// The same for tensors on `device`. On a GPU: what the driver says is free, and what LibTorch's allocator holds of it
// without using it. May throw what LibTorch throws.
int64_t AvailableMemory(c10::Device device);

// Gives malloc's free pages back to the system: they no longer count as in use by a cgroup or the machine. Their
// addresses stay, so this does not help against RLIMIT_AS: see InstallCountingCpuAllocator. Thread-safe.
void ReleaseCachedMemory();

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_AVAILABLE_MEMORY_H_
