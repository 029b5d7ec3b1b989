// hotlora's own kernels against their references, in all dtypes and layouts.

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "src/nn/merge_check.h"
#include "src/tensor/device.h"
#include "src/tensor/device_kernels.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/stages.h"
#include "tests/nn/random_merge.h"

namespace hotlora {
namespace {

constexpr c10::ScalarType kDtypes[] = {at::kFloat, at::kHalf, at::kBFloat16};

void MergeAll(absl::Span<const WeightToMerge> weights) { MergeWeights(weights, DoraWeighting::kScaledChange); }

// The worst error of all weights, in one launch.
void CheckMerge(Probe& probe, const std::string& name, const RandomMerge& merge, c10::ScalarType live) {
  probe.SetDoing(absl::StrCat("it checked ", name));
  MergeAll(merge.ToMerge());
  Synchronize(probe.device());
  double worst = 0;
  for (size_t i = 0; i < merge.size() && !std::isnan(worst); ++i) {
    const double error = merge.ErrorOf(i);
    worst = error <= worst ? worst : error;
  }
  probe.AddCheck(name, worst, MergeTolerance(live));
}

std::string NameOf(const RandomMerge::Dtypes& dtypes) {
  return absl::StrCat(DtypeName(dtypes.live), "_from_", DtypeName(dtypes.clean), "_by_", DtypeName(dtypes.factors));
}

// All combinations of dtypes, on small weights.
void CheckEnds(Probe& probe) {
  for (const c10::ScalarType live : kDtypes) {
    for (const c10::ScalarType clean : kDtypes) {
      for (const c10::ScalarType factors : kDtypes) {
        RandomMerge merge(probe.device());
        merge.AddEnds({live, clean, factors});
        CheckMerge(probe, absl::StrCat("merge.ends.", NameOf({live, clean, factors})), merge, live);
      }
    }
  }
}

// SDXL's shapes, as it is served: linear layers, and convolutions whose live weights are NHWC.
void CheckModelShapes(Probe& probe) {
  const std::vector<std::vector<int64_t>> shapes = {
      {640, 640},       {640, 2048},      {5120, 640},      {640, 2560},       {1280, 1280},
      {1280, 2048},     {10240, 1280},    {1280, 5120},     {320, 4, 3, 3},    {4, 320, 3, 3},
      {320, 320, 3, 3}, {640, 960, 3, 3}, {640, 320, 1, 1}, {1280, 1280, 3, 3}};
  for (const RandomMerge::Dtypes dtypes : {RandomMerge::Dtypes{at::kHalf, at::kHalf, at::kHalf},
                                           {at::kBFloat16, at::kBFloat16, at::kBFloat16},
                                           {at::kBFloat16, at::kHalf, at::kHalf}}) {
    for (const auto& ranks : {std::vector<int64_t>{64}, {16, 128}}) {
      const std::string name = absl::StrCat("merge.sdxl.", NameOf(dtypes), ".rank_", ranks.back());
      if (!HasTime(probe, name)) {
        continue;
      }
      RandomMerge merge(probe.device());
      for (const std::vector<int64_t>& shape : shapes) {
        merge.Add(shape, ranks, dtypes,
                  shape.size() == 4 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
      }
      CheckMerge(probe, name, merge, dtypes.live);
    }
  }
}

}  // namespace

absl::Status RunKernels(Probe& probe) {
  const c10::InferenceMode inference;
  if (KernelsOf(probe.device().type()) == nullptr) {
    const std::string why = absl::StrCat("hotlora has no kernels of its own for ", probe.device_name());
    return probe.device().is_cpu() ? absl::UnavailableError(why) : absl::InternalError(why);
  }
  for (const c10::ScalarType dtype : kDtypes) {
    const std::optional<std::string> fault = FindMergeFault(probe.device(), dtype, MergeAll);
    probe.AddCheck({absl::StrCat("merge.start_check.", DtypeName(dtype)), {}, {}, !fault, fault.value_or("")});
  }
  CheckEnds(probe);
  if (!probe.tiny()) {
    CheckModelShapes(probe);
  }
  return absl::OkStatus();
}

}  // namespace hotlora
