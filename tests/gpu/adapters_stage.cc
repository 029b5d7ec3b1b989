// What adapters take on SDXL's UNet: merge, restore, upload and side branch; and what work on other streams takes from
// the steps.

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "src/base/stopwatch.h"
#include "src/nn/adapter_set.h"
#include "src/nn/block_layout.h"
#include "src/pipeline/applied_adapters.h"
#include "src/sdxl/unet.h"
#include "src/sdxl/vae_decoder.h"
#include "src/tensor/device.h"
#include "src/tensor/device_stream.h"
#include "src/tensor/host_slab.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/shapes.h"
#include "tests/gpu/stages.h"

namespace hotlora {
namespace {

constexpr double kMilliseconds = 1e3;

// A UNet whose weights adapters can change.
struct AdaptableUnet {
  AdaptableUnet(const Probe& probe, c10::ScalarType dtype)
      : config(ShapesOf(probe).unet),
        parameters(probe.device(), dtype, &adaptable),
        unet(ParameterScope(parameters), config) {}

  UnetConfig config;
  AdaptableModules adaptable;
  SeededParameters parameters;
  Unet unet;
};

// An adapter in the host's slab, as in the host tier, and room for it on the device.
class HeldAdapter {
 public:
  HeldAdapter(const Probe& probe, const ModuleTable& table, int64_t rank, std::string name)
      : name_(std::move(name)),
        stored_(MakeAdapter(table, rank, at::kHalf, probe.device())),
        bytes_(BlockBytes(stored_, BlockDtype::kAsStored)),
        host_(bytes_, probe.device()),
        hosted_(LayOut(stored_, BlockDtype::kAsStored, host_.Block(0, bytes_))),
        device_(at::empty({bytes_}, at::TensorOptions(at::kByte).device(probe.device()))) {
    Upload();
    Synchronize(probe.device());
  }

  // Queues the copy to the device.
  void Upload() { uploaded_ = CopyToSlab(*hosted_, device_, 0); }

  AdapterSet Set() const {
    AdapterSet set;
    set.adapters.push_back({uploaded_, name_, 0.8, 0.0});
    return set;
  }
  int64_t bytes() const { return bytes_; }

 private:
  const std::string name_;
  const AdapterWeights stored_;
  const int64_t bytes_;
  const HostSlab host_;
  const std::shared_ptr<const AdapterWeights> hosted_;
  const at::Tensor device_;
  std::shared_ptr<const AdapterWeights> uploaded_;
};

// Bytes of all weights that the adapter changes: a merge reads the clean ones and writes the live ones.
int64_t ChangedBytes(const AdaptableModules& modules, const AdapterSet& set) {
  int64_t bytes = 0;
  for (const ModuleDelta& delta : set.adapters.front().weights->deltas) {
    bytes += static_cast<int64_t>(modules.weights[delta.module].live.nbytes());
  }
  return bytes;
}

bool AllEqualClean(const AdaptableModules& modules) {
  return std::all_of(modules.weights.begin(), modules.weights.end(),
                     [](const AdaptableWeight& weight) { return at::equal(weight.live, weight.clean); });
}

// Swaps between the base, an adapter and another one, in turn.
void MeasureMerge(Probe& probe, AdaptableUnet& network, const std::string& dtype, int64_t rank) {
  AppliedAdapters applied(network.adaptable.table, network.adaptable.weights, DoraWeighting::kScaledChange);
  HeldAdapter first(probe, network.adaptable.table, rank, "first"),
      second(probe, network.adaptable.table, rank, "second");
  std::vector<double> merge, restore, swap, from_host;
  const auto timed = [&](std::vector<double>& times, bool counts, auto&& work) {
    const Stopwatch one;
    work();
    Synchronize(probe.device());
    if (counts) {
      times.push_back(one.Seconds() * kMilliseconds);
    }
  };
  const int rounds = probe.tiny() ? 2 : 10;
  for (int round = -1; round < rounds && (round < 1 || probe.SecondsLeft() > 0); ++round) {  // round -1 warms up
    const bool counts = round >= 0;
    timed(merge, counts, [&] { applied.Apply(first.Set(), ApplyMode::kMerged); });
    timed(swap, counts, [&] { applied.Apply(second.Set(), ApplyMode::kMerged); });
    timed(from_host, counts, [&] {
      first.Upload();
      applied.Apply(first.Set(), ApplyMode::kMerged);
    });
    timed(restore, counts, [&] { applied.Apply({}, ApplyMode::kMerged); });
  }
  const std::string suffix = absl::StrCat(".", dtype, ".rank_", rank);
  probe.AddFigure(absl::StrCat("merge", suffix), "ms", merge);
  const auto bytes = static_cast<double>(ChangedBytes(network.adaptable, first.Set()));
  probe.AddFigure(absl::StrCat("merge", suffix, ".rate"), "GB/s",
                  PerSecond((2 * bytes + static_cast<double>(first.bytes())) / 1e9, merge));
  probe.AddFigure(absl::StrCat("swap", suffix, ".resident"), "ms", swap);
  probe.AddFigure(absl::StrCat("swap", suffix, ".from_host"), "ms", from_host);
  probe.AddFigure(absl::StrCat("restore", suffix), "ms", restore);
  probe.AddFigure(absl::StrCat("restore", suffix, ".rate"), "GB/s", PerSecond(2 * bytes / 1e9, restore));
  probe.AddFigure(absl::StrCat("merge", suffix, ".modules"), "modules",
                  static_cast<double>(first.Set().adapters.front().weights->deltas.size()));
  probe.AddCheck(absl::StrCat("merge", suffix, ".base_restored"), AllEqualClean(network.adaptable));
}

void MeasureUpload(Probe& probe, const AdaptableUnet& network, int64_t rank) {
  HeldAdapter adapter(probe, network.adaptable.table, rank, "adapter");
  const std::string name = absl::StrCat("upload.rank_", rank);
  const Times times = Measure(probe, {2, 20, 2}, [&] { adapter.Upload(); });
  AddTimes(probe, name, times);
  probe.AddFigure(absl::StrCat(name, ".rate"), "GB/s",
                  PerSecond(static_cast<double>(adapter.bytes()) / 1e9, times.wall));
}

// A step of one image under guidance, with and without side branches, in turn.
void MeasureSide(Probe& probe, AdaptableUnet& network, const std::string& dtype, const UnetInput& input, int64_t rank) {
  HeldAdapter adapter(probe, network.adaptable.table, rank, "adapter");
  AppliedAdapters applied(network.adaptable.table, network.adaptable.weights, DoraWeighting::kScaledChange);
  const auto side = applied.SideOf(adapter.Set());
  const SideRows rows[] = {{0, input.sample.size(0), &side->table}};
  std::vector<double> plain, with, ratios;
  const Repeats once{0, 1, 0};
  network.unet.forward(input);  // warms up
  network.unet.forward(input, {}, rows);
  for (int round = 0; round < (probe.tiny() ? 2 : 8) && (round == 0 || probe.SecondsLeft() > 0); ++round) {
    plain.push_back(Measure(probe, once, [&] { network.unet.forward(input); }).wall.front());
    with.push_back(Measure(probe, once, [&] { network.unet.forward(input, {}, rows); }).wall.front());
    ratios.push_back(with.back() / plain.back());
  }
  const std::string name = absl::StrCat("side.", dtype, ".rank_", rank);
  probe.AddFigure(absl::StrCat(name, ".plain"), "ms", plain);
  probe.AddFigure(absl::StrCat(name, ".side"), "ms", with);
  probe.AddFigure(absl::StrCat(name, ".ratio"), "1", ratios);
}

// Steps on a stream of high priority, without and with `work` again and again on one of low priority beside them.
void MeasureBeside(Probe& probe, const std::string& name, const Unet& unet, const UnetInput& input,
                   absl::FunctionRef<void()> work) {
  const DeviceStream steps(probe.device(), DeviceStream::Priority::kHigh);
  const DeviceStream others(probe.device(), DeviceStream::Priority::kLow);
  const auto run = [](const DeviceStream& stream, absl::FunctionRef<void()> body) {
    const Stopwatch one;
    const absl::Status status = stream.Run("a stage of gpu_probe", [&] {
      body();
      return absl::OkStatus();
    });
    TORCH_CHECK(status.ok(), status.message());
    return one.Seconds() * kMilliseconds;
  };
  const auto step = [&] { return run(steps, [&] { unet.forward(input); }); };
  const auto time_steps = [&] {
    std::vector<double> times;
    const Stopwatch all;
    do {
      times.push_back(step());
    } while (times.size() < 20 && all.Seconds() < 2 && probe.SecondsLeft() > 0);
    return times;
  };
  step();
  run(others, work);
  const std::vector<double> alone = time_steps();
  std::vector<double> work_alone;
  for (int i = 0; i < 3; ++i) {
    work_alone.push_back(run(others, work));
  }
  std::atomic<bool> stop(false);
  std::vector<double> work_beside;
  std::string fault;
  absl::Notification warm;
  std::thread other([&] {
    const c10::InferenceMode inference;
    try {
      run(others, work);  // plans and handles are a thread's own
      warm.Notify();
      while (!stop) {
        work_beside.push_back(run(others, work));
      }
    } catch (const std::exception& error) {
      fault = error.what();
      if (!warm.HasBeenNotified()) {
        warm.Notify();
      }
    }
  });
  std::vector<double> beside;
  {
    const absl::Cleanup end = [&] {
      stop = true;
      other.join();
    };
    warm.WaitForNotification();
    beside = time_steps();
  }
  TORCH_CHECK(fault.empty(), fault);
  probe.AddFigure(absl::StrCat(name, ".step.alone"), "ms", alone);
  probe.AddFigure(absl::StrCat(name, ".step.beside"), "ms", beside);
  probe.AddFigure(absl::StrCat(name, ".work.alone"), "ms", work_alone);
  if (!work_beside.empty()) {
    probe.AddFigure(absl::StrCat(name, ".work.beside"), "ms", work_beside);
  }
}

UnetInput OneImage(const Probe& probe, const AdaptableUnet& network, c10::ScalarType dtype) {
  return MakeUnetInput(network.config, 2, SizeOf(probe, 1024) / 8, probe.device(), dtype);
}

}  // namespace

absl::Status RunAdapters(Probe& probe) {
  const c10::InferenceMode inference;
  for (const c10::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    AdaptableUnet network(probe, dtype);
    const std::string name = DtypeName(dtype);
    for (const int64_t rank : {64, 16, 128}) {
      if (HasTime(probe, absl::StrCat("merge.", name, ".rank_", rank))) {
        MeasureMerge(probe, network, name, rank);
      }
    }
    const UnetInput input = OneImage(probe, network, dtype);
    for (const int64_t rank : {16, 64}) {
      if (HasTime(probe, absl::StrCat("side.", name, ".rank_", rank))) {
        MeasureSide(probe, network, name, input, rank);
      }
    }
    if (dtype == at::kBFloat16) {  // the adapter's bytes do not depend on it
      for (const int64_t rank : {16, 64, 128}) {
        if (HasTime(probe, absl::StrCat("upload.rank_", rank))) {
          MeasureUpload(probe, network, rank);
        }
      }
    }
  }
  return absl::OkStatus();
}

absl::Status RunBeside(Probe& probe) {
  const c10::InferenceMode inference;
  const c10::ScalarType dtype = at::kBFloat16;
  AdaptableUnet network(probe, dtype);
  const UnetInput input = OneImage(probe, network, dtype);
  {
    const VaeConfig vae = ShapesOf(probe).vae;
    SetFloat32Precision(dtype);
    SeededParameters parameters(probe.device(), at::kFloat);
    const VaeDecoder decoder(ParameterScope(parameters), vae);
    const int64_t size = SizeOf(probe, 1024) / vae.factor();
    const at::Tensor latents =
        at::randn({1, vae.latent_channels, size, size}, at::TensorOptions(at::kFloat).device(probe.device()));
    Synchronize(probe.device());
    probe.SetDoing("it measured a decode beside steps");
    MeasureBeside(probe, "beside.decode", network.unet, input, [&] { decoder.forward(latents); });
  }
  HeldAdapter adapter(probe, network.adaptable.table, 64, "adapter");
  probe.SetDoing("it measured an upload beside steps");
  MeasureBeside(probe, "beside.upload_rank_64", network.unet, input, [&] { adapter.Upload(); });
  return absl::OkStatus();
}

}  // namespace hotlora
