#include "tests/fakes/sim_device/merge_kernel.h"

#include <vector>

#include <c10/util/Exception.h>

#include "tests/fakes/serial_merge.h"
#include "tests/fakes/sim_device/counts.h"
#include "tests/fakes/sim_device/device_memory.h"
#include "tests/fakes/sim_device/stream.h"

namespace hotlora {
namespace {

// `address` as a kernel of `device` reads it.
template <typename Value>
Value* Reach(Value* address, c10::DeviceIndex device) {
  TORCH_CHECK(address == nullptr || DeviceMemory::OwnerOf(address) == device,
              "the merge was launched on another device than its weights'");
  return static_cast<Value*>(DeviceMemory::AsKernel(address));
}

template <typename Entry>
std::vector<Entry> Read(const Entry* table, int64_t count, c10::DeviceIndex device) {
  const Entry* const begin = count > 0 ? Reach(table, device) : nullptr;
  return {begin, begin + count};
}

void Merge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
           c10::DeviceIndex device) {
  std::vector<MergeTask> task_table = Read(tasks, task_count, device);
  std::vector<MergeProduct> product_table =
      Read(products, task_table.back().first_product + task_table.back().products, device);
  for (MergeTask& task : task_table) {
    task.live = Reach(task.live, device);
    task.clean = Reach(task.clean, device);
  }
  for (MergeProduct& product : product_table) {
    product.up = Reach(product.up, device);
    product.down = Reach(product.down, device);
  }
  MergeSerially(task_table.data(), task_count, product_table.data(), tiles);
}

}  // namespace

int32_t LaunchSimMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                       void* stream) {
  SimStream& queue = stream == nullptr ? StreamOf(c10::Stream(c10::Stream::UNSAFE, SimDevice(CurrentSimDevice()), 0))
                                       : *static_cast<SimStream*>(stream);
  const c10::DeviceIndex device = queue.stream().device_index();
  if (DeviceMemory::OwnerOf(tasks) != device || device != CurrentSimDevice()) {
    return 1;
  }
  CountSimLaunch("merge");
  queue.Enqueue([=] { Merge(tasks, task_count, products, tiles, device); });
  return 0;
}

const char* SimMergeErrorText(int32_t error) {
  return error == 0 ? "no error" : "the merge was launched on another device than its tables'";
}

}  // namespace hotlora
