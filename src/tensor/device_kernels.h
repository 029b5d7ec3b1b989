#ifndef HOTLORA_SRC_TENSOR_DEVICE_KERNELS_H_
#define HOTLORA_SRC_TENSOR_DEVICE_KERNELS_H_

// hotlora's own kernels for a kind of device. Code that uses one asks KernelsOf and computes by LibTorch alone if there
// are none, so no other file depends on how a device's kernels are built or loaded.

#include <cstdint>

#include <c10/core/DeviceType.h>

namespace hotlora {

struct MergeProduct;
struct MergeTask;

// A plain struct, because it comes out of a library that is loaded at run time (src/cuda). The first two members stay
// what they are: they say whether program and library were built from the same sources.
struct DeviceKernels {
  uint64_t size;        // of this struct
  const char* release;  // of hotlora

  // Rebuilds all weights of `tasks` on the current device in one launch on `stream`, the device's own handle of a
  // stream. Does not wait.
  //
  // Inputs   tasks, products: on the device, as MergeTile::Run wants them; tiles: the sum of TilesOf over the tasks
  // Errors   the device runtime's code of this launch; 0: none. Errors of earlier work stay as they are.
  int32_t (*launch_merge)(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                          void* stream);

  // The text of a code; it lives as long as the process.
  const char* (*error_text)(int32_t code);
};

// The kernels of that kind of device; nullptr: it has none. Thread-safe.
const DeviceKernels* KernelsOf(c10::DeviceType type);

// Sets them, or takes them away with nullptr. `kernels` must live as long as the process. Thread-safe.
void SetKernels(c10::DeviceType type, const DeviceKernels* kernels);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_DEVICE_KERNELS_H_
