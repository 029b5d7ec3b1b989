// What is there: libraries and their versions, the device, LibTorch's settings, the allocator, pinned memory.

#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/InferenceMode.h>

#include "src/tensor/available_memory.h"
#include "src/tensor/device.h"
#include "src/tensor/memory_stats.h"
#include "tests/gpu/cuda_runtime.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/stages.h"

namespace hotlora {
namespace {

using Json = nlohmann::ordered_json;

void NoteVersions(Probe& probe) {
  Json versions = {{"hotlora", HOTLORA_VERSION}, {"libtorch", HOTLORA_LIBTORCH_VERSION}};
  if (probe.device().is_cuda()) {
    const at::CUDAHooksInterface& cuda = at::detail::getCUDAHooks();
    versions["cuda_driver"] = cuda_runtime::DriverVersion().value_or(0);
    versions["cuda_runtime"] = cuda_runtime::RuntimeVersion().value_or(0);
    versions["cuda_runtime_of_libtorch"] = cuda.versionCUDART();
    versions["cudnn"] = cuda.versionRuntimeCuDNN();
    versions["cudnn_frontend"] = cuda.versionCuDNNFrontend();
  }
  probe.AddNote("versions", versions);
}

// Which of the libraries that matter this process has loaded, and from where.
void NoteLibraries(Probe& probe) {
  std::set<std::string> paths;
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    const size_t begin = line.find('/');
    const size_t name = line.rfind('/') + 1;
    for (const char* const prefix : {"libhotlora", "libtorch", "libc10", "libcuda", "libcudnn.", "libcublas"}) {
      if (begin != std::string::npos && line.compare(name, std::strlen(prefix), prefix) == 0) {
        paths.insert(line.substr(begin));
      }
    }
  }
  probe.AddNote("libraries", paths);
}

// The GPU's name and clocks are gpu_watch.h's.
void NoteDevice(Probe& probe) {
  if (!probe.device().is_cuda()) {
    return;
  }
  const auto value = [&](cuda_runtime::Attribute attribute) {
    return cuda_runtime::ValueOf(attribute, probe.device()).value_or(0);
  };
  using cuda_runtime::Attribute;
  probe.AddNote("device",
                {{"compute_capability", absl::StrCat(value(Attribute::kMajor), ".", value(Attribute::kMinor))},
                 {"multiprocessors", value(Attribute::kMultiprocessors)},
                 {"l2_bytes", value(Attribute::kL2Bytes)},
                 {"clock_kilohertz", value(Attribute::kClockKilohertz)},
                 {"memory_clock_kilohertz", value(Attribute::kMemoryClockKilohertz)},
                 {"memory_bus_bits", value(Attribute::kMemoryBusBits)}});
}

// The order in which LibTorch tries the ways to compute attention, and the settings of arithmetic.
void NoteSettings(Probe& probe) {
  // On CUDA, LibTorch chooses the order at the first call.
  const at::Tensor qkv = at::zeros({1, 1, 8, 64}, at::TensorOptions(at::kHalf).device(probe.device()));
  at::scaled_dot_product_attention(qkv, qkv, qkv);
  at::Context& context = at::globalContext();
  Json order = Json::array();
  for (const at::SDPBackend backend : context.sDPPriorityOrder()) {
    switch (backend) {
      case at::SDPBackend::flash_attention:
        order.push_back(context.userEnabledFlashSDP() ? "flash" : "flash (off)");
        break;
      case at::SDPBackend::efficient_attention:
        order.push_back(context.userEnabledMemEfficientSDP() ? "efficient" : "efficient (off)");
        break;
      case at::SDPBackend::math:
        order.push_back(context.userEnabledMathSDP() ? "math" : "math (off)");
        break;
      case at::SDPBackend::cudnn_attention:
        order.push_back(context.userEnabledCuDNNSDP() ? "cudnn" : "cudnn (off)");
        break;
      default:
        order.push_back(absl::StrCat("number ", static_cast<int>(backend)));
    }
  }
  probe.AddNote("attention_order", order);
  const auto flags = [&] {
    return Json{{"convolutions", context.allowTF32CuDNN()}, {"matrices", context.allowTF32CuBLAS()}};
  };
  SetFloat32Precision(at::kHalf);
  const Json half = flags();
  SetFloat32Precision(at::kFloat);
  probe.AddNote("tf32", {{"float32", flags()}, {"half", half}});
  probe.AddNote("cudnn_benchmark", context.benchmarkCuDNN());
  probe.AddNote("cpu_threads", at::get_num_threads());
}

Json AllocatorFigures(c10::Device device) {
  const MemoryStats stats = GetMemoryStats(device);
  return {{"allocated_bytes", stats.allocated},
          {"reserved_bytes", stats.reserved},
          {"inactive_split_bytes", stats.inactive_split},
          {"segments", stats.segments},
          {"num_alloc_retries", stats.retries},
          {"num_device_alloc", stats.taken},
          {"num_device_free", stats.returned}};
}

// A block that is freed is given out again: the allocator takes nothing more from the device.
void TryAllocator(Probe& probe) {
  constexpr int64_t kBytes = 64 << 20;
  const auto allocate = [&] { at::empty({kBytes}, at::TensorOptions(at::kByte).device(probe.device())); };
  allocate();
  const MemoryStats before = GetMemoryStats(probe.device());
  allocate();
  const MemoryStats after = GetMemoryStats(probe.device());
  probe.AddCheck("allocator.reuses_memory", before.taken == after.taken && before.allocated == after.allocated);
  probe.AddNote("allocator", AllocatorFigures(probe.device()));
  probe.AddFigure("memory.available", "bytes", static_cast<double>(AvailableMemory(probe.device())));
  if (!probe.device().is_cpu()) {
    const auto [free, total] = c10::getDeviceAllocator(probe.device().type())->getMemoryInfo(probe.device().index());
    probe.AddFigure("memory.total", "bytes", static_cast<double>(total));
  }
}

// What is written to the device from pinned memory comes back.
void TryPinnedMemory(Probe& probe) {
  const int64_t floats = probe.tiny() ? 1 << 18 : 64 << 20;
  const at::TensorOptions pinned = at::TensorOptions(at::kFloat).pinned_memory(!probe.device().is_cpu());
  const Times times = Measure(probe, {0, 1, 0}, [&] { at::empty({floats}, pinned); });
  probe.AddFigure(absl::StrCat("pinned.allocate_", floats * 4 >> 20, "_MiB"), "ms", times.wall);
  at::Tensor sent = at::empty({floats}, pinned), received = at::empty({floats}, pinned);
  at::arange_out(sent, floats);
  received.copy_(sent.to(probe.device(), /*non_blocking=*/true), /*non_blocking=*/true);
  Synchronize(probe.device());
  probe.AddCheck("pinned.round_trip", at::equal(sent, received));
  if (!probe.device().is_cpu()) {
    probe.AddCheck("pinned.is_pinned", sent.is_pinned());
  }
}

}  // namespace

absl::Status RunLoad(Probe& probe) {
  const c10::InferenceMode inference;
  NoteVersions(probe);
  NoteLibraries(probe);
  NoteDevice(probe);
  NoteSettings(probe);
  TryAllocator(probe);
  TryPinnedMemory(probe);
  return absl::OkStatus();
}

}  // namespace hotlora
