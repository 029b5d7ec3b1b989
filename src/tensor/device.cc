#include "src/tensor/device.h"

#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <ATen/Context.h>
#include <ATen/cpu/Utils.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "src/tensor/cuda_library.h"

namespace hotlora {

void SetFloat32Precision(c10::ScalarType dtype) {
  at::globalContext().setAllowTF32CuDNN(dtype != c10::kFloat);
  at::globalContext().setAllowTF32CuBLAS(false);
}

namespace {

bool HasBfloat16Matrices() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  const auto found = capabilities.find("amx_bf16");
  // init_amx asks the kernel for leave to use the tile registers; virtual machines may have the
  // flag and not the leave.
  return found != capabilities.end() && found->second.isBool() && found->second.toBool() && at::cpu::init_amx();
}

absl::StatusOr<c10::Device> ResolveDevice(absl::string_view name) {
  if (name == "cpu") {
    return c10::Device(c10::kCPU);
  }
  const bool any = name == "auto";
  absl::string_view digits = name;
  int index = 0;
  if (absl::ConsumePrefix(&digits, "cuda:")) {
    // SimpleAtoi would take signs and spaces too.
    const bool plain = !digits.empty() && absl::ascii_isdigit(digits.front()) && absl::ascii_isdigit(digits.back());
    if (!plain || !absl::SimpleAtoi(digits, &index) || index > std::numeric_limits<c10::DeviceIndex>::max()) {
      index = -1;
    }
  } else if (name != "cuda" && !any) {
    index = -1;
  }
  if (index < 0) {
    return absl::InvalidArgumentError(absl::StrCat("device is \"", name, "\"; allowed are auto, cpu, cuda, cuda:N"));
  }
  const absl::Status cuda = LoadCuda();
  if (any && !cuda.ok()) {
    return c10::Device(c10::kCPU);
  }
  if (!cuda.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("device is \"", name, "\"; ", cuda.message()));
  }
  const size_t count = at::getNumGPUs();
  if (static_cast<size_t>(index) >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device is \"", name, "\"; CUDA finds ", count, " devices, cuda:0 to cuda:", count - 1));
  }
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

absl::StatusOr<c10::ScalarType> NamedDtype(absl::string_view name, absl::string_view what, absl::string_view allowed) {
  for (const c10::ScalarType dtype : {c10::kFloat, c10::kBFloat16, c10::kHalf}) {
    if (name == DtypeName(dtype)) {
      return dtype;
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(what, " is \"", name, "\"; allowed are ", allowed));
}

absl::StatusOr<c10::ScalarType> ResolveDtype(absl::string_view name, c10::Device device) {
  if (name == "auto") {
    return device.is_cuda() || HasBfloat16Matrices() ? c10::kBFloat16 : c10::kFloat;
  }
  return NamedDtype(name, "dtype", "auto, float32, bfloat16, float16");
}

}  // namespace

absl::StatusOr<ComputePlace> ResolvePlace(absl::string_view device, absl::string_view dtype,
                                          absl::string_view vae_dtype) {
  const absl::StatusOr<c10::Device> resolved = ResolveDevice(device);
  if (!resolved.ok()) {
    return resolved.status();
  }
  const absl::StatusOr<c10::ScalarType> resolved_dtype = ResolveDtype(dtype, *resolved);
  if (!resolved_dtype.ok()) {
    return resolved_dtype.status();
  }
  const absl::StatusOr<c10::ScalarType> of_vae = NamedDtype(vae_dtype, "vae-dtype", "float32, bfloat16, float16");
  if (!of_vae.ok()) {
    return of_vae.status();
  }
  SetFloat32Precision(*resolved_dtype);
  return ComputePlace{*resolved, *resolved_dtype, *of_vae};
}

std::string DeviceName(c10::Device device) {
  return device.is_cpu() ? "cpu" : absl::StrCat("cuda:", device.has_index() ? static_cast<int>(device.index()) : 0);
}

std::string DtypeName(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kFloat:
      return "float32";
    case c10::kBFloat16:
      return "bfloat16";
    case c10::kHalf:
      return "float16";
    default:
      return c10::toString(dtype);
  }
}

void Synchronize(c10::Device device) {
  if (!device.is_cpu()) {
    c10::impl::VirtualGuardImpl(device.type()).getStream(device).synchronize();
  }
}

}  // namespace hotlora
