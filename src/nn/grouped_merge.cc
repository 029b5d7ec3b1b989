#include "src/nn/grouped_merge.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <variant>

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "src/nn/merge_rows.h"
#include "src/tensor/device_kernels.h"
#include "src/tensor/parallel_for.h"

namespace hotlora {
namespace {

std::optional<ValueType> TypeOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return ValueType::kFloat;
    case at::kHalf:
      return ValueType::kHalf;
    case at::kBFloat16:
      return ValueType::kBfloat16;
    default:
      return std::nullopt;
  }
}

// MergeTask's window for the layout of `weight`; nullopt if it is neither of the two.
std::optional<int32_t> WindowOf(const at::Tensor& weight) {
  if (weight.is_contiguous()) {
    return 1;
  }
  if (weight.dim() == 4 && weight.is_contiguous(at::MemoryFormat::ChannelsLast)) {
    return static_cast<int32_t>(weight.size(2) * weight.size(3));
  }
  return std::nullopt;
}

std::optional<MergeProduct> ProductOf(const WeightedDelta& weighted, c10::Device device) {
  if (!IsPlainProduct(weighted)) {
    return std::nullopt;
  }
  const auto& [down, up, mid] = std::get<LowRank>(weighted.delta->change);
  const std::optional<ValueType> up_type = TypeOf(up), down_type = TypeOf(down);
  if (!up_type || !down_type || up.device() != device || down.device() != device || !up.is_contiguous() ||
      !down.is_contiguous()) {
    return std::nullopt;
  }
  MergeProduct product{};
  product.up = up.const_data_ptr();
  product.down = down.const_data_ptr();
  product.up_type = *up_type;
  product.down_type = *down_type;
  product.rank = static_cast<int32_t>(down.size(0));
  product.factor = static_cast<float>(weighted.weight * weighted.delta->scale);
  return product;
}

// Both tables on the device, the tasks first, by one copy that the host does not wait for: LibTorch keeps pinned memory
// until the copies out of it are done.
at::Tensor CopyTo(c10::Device device, const MergeTables& tables) {
  static_assert(sizeof(MergeTask) % alignof(MergeProduct) == 0, "the products would not be aligned");
  const size_t tasks = tables.tasks.size() * sizeof(MergeTask);
  const size_t products = tables.products.size() * sizeof(MergeProduct);
  const at::Tensor host =
      at::empty({static_cast<int64_t>(tasks + products)}, at::TensorOptions(at::kByte).pinned_memory(true));
  auto* const bytes = host.mutable_data_ptr<uint8_t>();
  std::copy_n(reinterpret_cast<const uint8_t*>(tables.tasks.data()), tasks, bytes);
  std::copy_n(reinterpret_cast<const uint8_t*>(tables.products.data()), products, bytes + tasks);
  return host.to(device, /*non_blocking=*/true);
}

void Launch(const DeviceKernels& kernels, c10::Device device, const MergeTables& tables) {
  const c10::DeviceGuard guard(device);  // a launch goes to the thread's current device
  // Freed at the end, before the kernel has read it; the allocator gives it only to later work of the same stream.
  const at::Tensor copied = CopyTo(device, tables);
  const auto* const tasks = static_cast<const MergeTask*>(copied.const_data_ptr());
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  const int32_t error = kernels.launch_merge(tasks, static_cast<int>(tables.tasks.size()),
                                             reinterpret_cast<const MergeProduct*>(tasks + tables.tasks.size()),
                                             tables.tiles, stream.native_handle());
  if (error != 0) {
    throw c10::AcceleratorError({__func__, __FILE__, static_cast<uint32_t>(__LINE__)}, error,
                                c10::str("merging ", tables.tasks.size(), " weights: ", kernels.error_text(error)));
  }
}

// On the CPU: the rows of weights that RowMerge can rebuild, in blocks that do not depend on the number of threads,
// then the others, a parameter on one thread.
void MergeOnCpu(absl::Span<const WeightToMerge> weights, DoraWeighting dora) {
  struct Block {
    const WeightToMerge* weight;
    int64_t first, count;
  };
  std::vector<Block> blocks;
  std::vector<const WeightToMerge*> others;
  for (const WeightToMerge& weight : weights) {
    if (!CanMergeRows(weight)) {
      others.push_back(&weight);
      continue;
    }
    const int64_t rows = weight.clean.size(0), step = RowsOfBlock(weight);
    for (int64_t first = 0; first < rows; first += step) {
      blocks.push_back({&weight, first, std::min(step, rows - first)});
    }
  }
  ParallelFor(0, static_cast<int64_t>(blocks.size()), 1, [&](int64_t begin, int64_t end) {
    at::Tensor scratch;
    std::optional<RowMerge> merge;  // of the block before
    for (int64_t i = begin; i < end; ++i) {
      const auto& [weight, first, count] = blocks[static_cast<size_t>(i)];
      if (i == begin || weight != blocks[static_cast<size_t>(i) - 1].weight) {
        merge.emplace(*weight, scratch);
      }
      merge->Rebuild(first, count);
    }
  });
  ParallelFor(0, static_cast<int64_t>(others.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const WeightToMerge& weight = *others[static_cast<size_t>(i)];
      at::Tensor live = weight.live;
      MergeWeight(live, weight.clean, weight.deltas, dora);
    }
  });
}

}  // namespace

bool AddToTables(const WeightToMerge& weight, MergeTables* tables) {
  const std::optional<ValueType> live_type = TypeOf(weight.live), clean_type = TypeOf(weight.clean);
  const std::optional<int32_t> live_window = WindowOf(weight.live), clean_window = WindowOf(weight.clean);
  const int64_t rows = weight.live.size(0), columns = weight.live.numel() / std::max<int64_t>(1, rows);
  if (!live_type || !clean_type || !live_window || !clean_window || weight.live.numel() == 0 ||
      weight.live.sizes() != weight.clean.sizes() || std::max(rows, columns) > std::numeric_limits<int32_t>::max()) {
    return false;
  }
  std::vector<MergeProduct> products;
  for (const WeightedDelta& delta : weight.deltas) {
    if (delta.weight == 0.0) {
      continue;
    }
    const std::optional<MergeProduct> product = ProductOf(delta, weight.live.device());
    if (!product) {
      return false;
    }
    products.push_back(*product);
  }
  MergeTask task{};
  task.live = weight.live.data_ptr();
  task.clean = weight.clean.const_data_ptr();
  task.live_type = *live_type;
  task.clean_type = *clean_type;
  task.rows = static_cast<int32_t>(rows);
  task.columns = static_cast<int32_t>(columns);
  task.live_window = *live_window;
  task.clean_window = *clean_window;
  task.first_product = static_cast<int32_t>(tables->products.size());
  task.products = static_cast<int32_t>(products.size());
  task.first_tile = tables->tiles;
  tables->tiles += MergeTile::TilesOf(task);
  tables->tasks.push_back(task);
  tables->products.insert(tables->products.end(), products.begin(), products.end());
  return true;
}

void MergeWeights(absl::Span<const WeightToMerge> weights, DoraWeighting dora) {
  if (weights.empty()) {
    return;
  }
  const c10::Device device = weights.front().live.device();
  if (device.is_cpu()) {
    MergeOnCpu(weights, dora);
    return;
  }
  const DeviceKernels* const kernels = KernelsOf(device.type());
  MergeTables tables;
  for (const WeightToMerge& weight : weights) {
    if (kernels == nullptr || !AddToTables(weight, &tables)) {
      at::Tensor live = weight.live;
      MergeWeight(live, weight.clean, weight.deltas, dora);
    }
  }
  if (!tables.tasks.empty()) {
    Launch(*kernels, device, tables);
  }
}

}  // namespace hotlora
