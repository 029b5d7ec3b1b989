#include "src/nn/merge_check.h"

#include <deque>
#include <limits>
#include <sstream>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "src/nn/weight_merge.h"
#include "src/tensor/seeded_noise.h"

namespace hotlora {
namespace {

struct Shape {
  std::vector<int64_t> weight;
  std::vector<int64_t> ranks;  // of its products
};

const Shape kShapes[] = {
    {{130, 70}, {8, 24}}, {{64, 64}, {16}}, {{3, 200}, {}}, {{65, 1}, {40}}, {{20, 12, 3, 3}, {8}}};

// A weight twice: on the CPU, and on the device under test.
class TriedWeight {
 public:
  TriedWeight(const Shape& shape, c10::ScalarType clean, c10::ScalarType live, c10::Device device, SeededNoise& noise)
      : clean_(noise.Draw(shape.weight).to(clean)), on_device_clean_(clean_.to(device)) {
    const auto format = clean_.dim() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    expected_ = at::empty(shape.weight, at::TensorOptions(live), format);
    // So that an element that the merge leaves out shows.
    live_ = at::full(shape.weight, std::numeric_limits<double>::quiet_NaN(), at::TensorOptions(live).device(device))
                .contiguous(format);
    const int64_t rows = clean_.size(0), columns = clean_.numel() / rows;
    for (const int64_t rank : shape.ranks) {
      const LowRank factors{noise.Draw({rank, columns}).to(clean), noise.Draw({rows, rank}).to(clean), {}};
      deltas_.push_back({0, factors, 0.5});
      on_device_deltas_.push_back({0, LowRank{factors.down.to(device), factors.up.to(device), {}}, 0.5});
    }
    double weight = 0.75;
    for (size_t i = 0; i < deltas_.size(); ++i) {
      weighted_.push_back({&deltas_[i], weight});
      on_device_weighted_.push_back({&on_device_deltas_[i], weight});
      weight = -0.25;
    }
    MergeWeight(expected_, clean_, weighted_);
  }

  WeightToMerge ToMerge() const { return {live_, on_device_clean_, on_device_weighted_}; }

  std::optional<std::string> Fault() const {
    const at::Tensor expected = expected_.to(at::kFloat), got = live_.cpu().to(at::kFloat);
    const double tolerance = MergeTolerance(live_.scalar_type());
    if (at::allclose(got, expected, tolerance, tolerance)) {
      return std::nullopt;
    }
    std::ostringstream text;
    text << "a weight of " << clean_.sizes() << " in " << live_.scalar_type() << ", from " << clean_.scalar_type()
         << " with " << deltas_.size() << " products, is off by " << (got - expected).abs().max().item<double>();
    return text.str();
  }

 private:
  const at::Tensor clean_, on_device_clean_;
  at::Tensor expected_, live_;
  std::vector<ModuleDelta> deltas_, on_device_deltas_;
  std::vector<WeightedDelta> weighted_, on_device_weighted_;
};

}  // namespace

double MergeTolerance(c10::ScalarType live) { return live == at::kFloat ? 2e-5 : live == at::kHalf ? 2e-3 : 1.6e-2; }

std::optional<std::string> FindMergeFault(c10::Device device, c10::ScalarType dtype,
                                          absl::FunctionRef<void(absl::Span<const WeightToMerge>)> merge) {
  const c10::InferenceMode inference;
  SeededNoise noise(/*seed=*/7);
  std::deque<TriedWeight> tried;  // stays where it is: the weights to merge point into it
  std::vector<WeightToMerge> weights;
  for (const c10::ScalarType clean : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const Shape& shape : kShapes) {
      weights.push_back(tried.emplace_back(shape, clean, dtype, device, noise).ToMerge());
    }
  }
  merge(weights);
  for (const TriedWeight& weight : tried) {
    if (std::optional<std::string> fault = weight.Fault(); fault.has_value()) {
      return fault;
    }
  }
  return std::nullopt;
}

}  // namespace hotlora
