#ifndef HOTLORA_SRC_TENSOR_DEVICE_H_
#define HOTLORA_SRC_TENSOR_DEVICE_H_

// The one place that decides where tensors live and in which dtype the networks compute. Everything else takes a
// ComputePlace and has no code path of its own for a kind of device.

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace hotlora {

struct ComputePlace {
  c10::Device device;
  c10::ScalarType dtype;  // float32, bfloat16 or float16: text encoders and UNet

  // The VAE's. float16 overflows in SDXL's own VAE (its config says force_upcast), and bfloat16 costs quality.
  c10::ScalarType vae_dtype = c10::ScalarType::Float;
};

// Sets for the whole process how a GPU computes what is float32, given the dtype of the networks. float32: exactly, as
// the word says. A half dtype: convolutions may use TF32 (10 bits of mantissa, as many as float16 has), which makes the
// VAE about four times as fast; products of matrices, which sum up the changes of adapters, never do. ResolvePlace
// calls it.
void SetFloat32Precision(c10::ScalarType dtype);

// Resolves the flags --device (auto, cpu, cuda, cuda:N), --dtype (auto, float32, bfloat16, float16) and --vae-dtype
// (one of the last three) on this machine.
// auto device: the first CUDA device, else cpu. auto dtype: bfloat16 on CUDA; on CPU float32, unless the CPU has bf16
// matrix instructions (AMX), then bfloat16. Loads CUDA (cuda_library.h) unless the device is cpu, and calls
// SetFloat32Precision with the result. InvalidArgument names the value and what is allowed; FailedPrecondition says why
// the device asked for is not there.
absl::StatusOr<ComputePlace> ResolvePlace(absl::string_view device, absl::string_view dtype,
                                          absl::string_view vae_dtype = "float32");

// "cpu" or "cuda:N", as metric label `device` and in ServerInfo.
std::string DeviceName(c10::Device device);

// "float32", "bfloat16", "float16".
std::string DtypeName(c10::ScalarType dtype);

// Waits until all work queued on `device` by this thread is done; nothing to do on the CPU.
void Synchronize(c10::Device device);

}  // namespace hotlora

#endif  // HOTLORA_SRC_TENSOR_DEVICE_H_
