// What this device can do at most, beside which other figures stand: products of matrices, copies, launches.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "src/tensor/device.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/stages.h"

namespace hotlora {
namespace {

// The device's own time where it tells, else the wall's.
const std::vector<double>& Best(const Times& times) { return times.device.empty() ? times.wall : times.device; }

void MeasureMatmul(Probe& probe, c10::ScalarType dtype) {
  const int64_t n = probe.tiny() ? 128 : 8192;
  const at::TensorOptions options = at::TensorOptions(probe.device()).dtype(dtype);
  // Random, as power and with it the clock depend on the bits.
  const at::Tensor a = at::randn({n, n}, options), b = at::randn({n, n}, options);
  at::Tensor product = at::empty({n, n}, options);
  const std::string name = absl::StrCat("matmul.", DtypeName(dtype), ".", n);
  const Times times = Measure(probe, {3, 20, 4}, [&] { at::mm_out(product, a, b); });
  AddTimes(probe, name, times);
  const double tera_operations = 2e-12 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  probe.AddFigure(absl::StrCat(name, ".rate"), "TFLOP/s", PerSecond(tera_operations, Best(times)));
  // Some rows against the CPU, so that what was fast was also right.
  const at::Tensor expected = at::mm(a.narrow(0, 0, 2).cpu().to(at::kFloat), b.cpu().to(at::kFloat));
  const at::Tensor got = product.narrow(0, 0, 2).cpu().to(at::kFloat);
  probe.AddCheck(absl::StrCat(name, ".error"), ((got - expected).norm() / expected.norm()).item<double>(), 1e-2);
}

// `bytes_moved` counts what is read and written.
void MeasureCopy(Probe& probe, const std::string& name, at::Tensor to, const at::Tensor& from, double bytes_moved) {
  const Times times = Measure(probe, {2, 20, 3}, [&] { to.copy_(from, /*non_blocking=*/true); });
  AddTimes(probe, name, times);
  probe.AddFigure(absl::StrCat(name, ".rate"), "GB/s", PerSecond(bytes_moved / 1e9, Best(times)));
  const int64_t end = from.numel() - 1;
  probe.AddCheck(absl::StrCat(name, ".last_byte"), to[end].item<uint8_t>() == from[end].item<uint8_t>());
}

void MeasureCopies(Probe& probe) {
  const at::TensorOptions bytes(at::kByte);
  const at::TensorOptions on_device = bytes.device(probe.device());
  {
    const int64_t size = probe.tiny() ? 4'000'000 : 4'000'000'000;
    MeasureCopy(probe, "copy.device_to_device", at::zeros({size}, on_device), at::full({size}, 7, on_device),
                2.0 * static_cast<double>(size));
  }
  const int64_t size = probe.tiny() ? 1'000'000 : 256'000'000;
  const at::TensorOptions pinned = bytes.pinned_memory(!probe.device().is_cpu());
  const at::Tensor host = at::empty({size}, pinned).fill_(9), device = at::zeros({size}, on_device);
  MeasureCopy(probe, "copy.pinned_to_device", device, host, static_cast<double>(size));
  MeasureCopy(probe, "copy.device_to_pinned", at::empty({size}, pinned).fill_(1), device, static_cast<double>(size));
  MeasureCopy(probe, "copy.pageable_to_device", device, at::full({size}, 5, bytes), static_cast<double>(size));
}

// A thousand of the smallest launches, one behind the other.
void MeasureLaunches(Probe& probe) {
  constexpr int kLaunches = 1000;
  at::Tensor one = at::zeros({1}, at::TensorOptions(probe.device()).dtype(at::kFloat));
  const Times times = Measure(probe, {2, 20, 2}, [&] {
    for (int i = 0; i < kLaunches; ++i) {
      one.add_(1.0F);
    }
  });
  AddTimes(probe, "launches.1000", times);
  probe.AddCheck("launches.1000.count", one.item<float>() == static_cast<float>(kLaunches * (2 + times.wall.size())));
}

}  // namespace

absl::Status RunCeilings(Probe& probe) {
  const c10::InferenceMode inference;
  for (const c10::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    MeasureMatmul(probe, dtype);
  }
  MeasureCopies(probe);
  MeasureLaunches(probe);
  return absl::OkStatus();
}

}  // namespace hotlora
