#ifndef HOTLORA_TESTS_NN_RANDOM_MERGE_H_
#define HOTLORA_TESTS_NN_RANDOM_MERGE_H_

#include <cmath>
#include <deque>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "src/nn/grouped_merge.h"

namespace hotlora {

// Random weights with products to merge on a device, and the same on the CPU for MergeWeight.
class RandomMerge {
 public:
  struct Dtypes {
    c10::ScalarType live, clean, factors;
  };
  explicit RandomMerge(c10::Device device) : device_(device) {}

  // A weight of that shape with a product of each rank, weighted 0.75, -0.25, -0.25 and so on. Its live elements are
  // NaN, so that one that the merge leaves out shows.
  void Add(std::vector<int64_t> shape, const std::vector<int64_t>& ranks, Dtypes dtypes,
           at::MemoryFormat live = at::MemoryFormat::Contiguous) {
    Weight& weight = weights_.emplace_back();
    weight.clean_on_cpu = Random(shape, dtypes.clean);
    weight.clean = weight.clean_on_cpu.to(device_);
    weight.live = at::full(shape, NAN, at::TensorOptions(device_).dtype(dtypes.live)).contiguous(live);
    const int64_t columns = weight.clean.numel() / shape[0];
    double strength = 0.75;
    for (const int64_t rank : ranks) {
      const at::Tensor down = Random({rank, columns}, dtypes.factors), up = Random({shape[0], rank}, dtypes.factors);
      AddDelta({0, LowRank{down, up, {}}, 0.5}, strength);
      strength = -0.25;
    }
  }

  // What ends in a tile of the kernel in every direction, windows and layouts, no product, several, one of weight 0,
  // and factors of the other dtypes.
  void AddEnds(Dtypes dtypes) {
    const auto with = [&](c10::ScalarType factors) { return Dtypes{dtypes.live, dtypes.clean, factors}; };
    constexpr auto kLast = at::MemoryFormat::ChannelsLast;
    Add({64, 64}, {16}, dtypes);
    Add({130, 70}, {8, 24}, dtypes);
    Add({3, 200}, {}, dtypes);
    Add({65, 1}, {40}, with(at::kFloat));
    Add({20, 12, 3, 3}, {8}, dtypes);
    Add({20, 12, 3, 3}, {8}, dtypes, kLast);
    Add({70, 36, 1, 1}, {8, 8, 72}, with(at::kHalf), kLast);
    Add({48, 32}, {8, 8}, dtypes);
    weights_.back().weighted[1].weight = 0.0;
    weights_.back().weighted_on_cpu[1].weight = 0.0;
    Add({96, 128}, {8}, with(at::kBFloat16));
  }

  // A weight whose change is not a sum of products.
  void AddDora(Dtypes dtypes) {
    Add({40, 24}, {}, dtypes);
    const LowRank product{Random({8, 24}, at::kFloat), Random({40, 8}, at::kFloat), {}};
    const at::Tensor magnitude = at::rand({40, 1, 1}, generator_, at::TensorOptions(at::kFloat));
    ModuleDelta delta{0, product, 0.5};
    delta.magnitude = magnitude;
    AddDelta(delta, 0.75);
  }

  // Valid until the next Add.
  std::vector<WeightToMerge> ToMerge() const {
    std::vector<WeightToMerge> merges;
    for (const Weight& weight : weights_) {
      merges.push_back({weight.live, weight.clean, weight.weighted});
    }
    return merges;
  }

  // The largest |live - expected| / (1 + |expected|) of a merged weight; NaN if an element is. Where nothing is added,
  // every byte must be right: any other one is infinite.
  double ErrorOf(size_t index) const {
    const Weight& weight = weights_[index];
    at::Tensor expected = at::empty_like(weight.live, at::TensorOptions(at::kCPU));
    MergeWeight(expected, weight.clean_on_cpu, weight.weighted_on_cpu);
    const at::Tensor got = weight.live.cpu();
    if (weight.weighted.empty() && !at::equal(got, expected)) {
      return INFINITY;
    }
    const at::Tensor reference = expected.to(at::kDouble);
    return ((got.to(at::kDouble) - reference).abs() / (reference.abs() + 1.0)).max().item<double>();
  }

  size_t size() const { return weights_.size(); }

 private:
  struct Weight {
    at::Tensor live, clean, clean_on_cpu;
    std::deque<ModuleDelta> deltas, deltas_on_cpu;  // stay where they are: what follows points to them
    std::vector<WeightedDelta> weighted, weighted_on_cpu;
  };

  at::Tensor Random(at::IntArrayRef shape, c10::ScalarType dtype) {
    return at::randn(shape, generator_, at::TensorOptions(at::kFloat)).to(dtype);
  }

  // To the last weight.
  void AddDelta(ModuleDelta delta, double strength) {
    Weight& weight = weights_.back();
    weight.deltas_on_cpu.push_back(delta);
    weight.weighted_on_cpu.push_back({&weight.deltas_on_cpu.back(), strength});
    auto& [down, up, mid] = std::get<LowRank>(delta.change);
    down = down.to(device_);
    up = up.to(device_);
    if (delta.magnitude.defined()) {
      delta.magnitude = delta.magnitude.to(device_);
    }
    weight.deltas.push_back(std::move(delta));
    weight.weighted.push_back({&weight.deltas.back(), strength});
  }

  const c10::Device device_;
  at::Generator generator_ = at::make_generator<at::CPUGeneratorImpl>(11);
  std::deque<Weight> weights_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_NN_RANDOM_MERGE_H_
