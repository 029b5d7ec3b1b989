#include "src/tensor/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <ATen/Context.h>

#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/tensor/device_kernels.h"

namespace hotlora {
namespace {

constexpr char kLibrary[] = "libhotlora_cuda.so";
constexpr char kKernels[] = "hotlora_cuda_kernels";

constexpr char kBuildForCuda[] =
    "run deploy/install_dependencies.sh --cuda and build preset cuda, or set device to cpu";
constexpr char kInstallTogether[] = "install both from one build";

absl::Status CheckKernels(const DeviceKernels* kernels) {
  if (kernels == nullptr || kernels->size != sizeof(DeviceKernels)) {
    return absl::FailedPreconditionError(
        absl::StrCat(kLibrary, " does not belong to this hotlora-server ", HOTLORA_VERSION, ": ", kInstallTogether));
  }
  if (std::string(kernels->release) != HOTLORA_VERSION) {
    return absl::FailedPreconditionError(absl::StrCat(kLibrary, " is of release ", kernels->release,
                                                      ", this program of ", HOTLORA_VERSION, ": ", kInstallTogether));
  }
  return absl::OkStatus();
}

absl::Status Load() {
  // Plans of convolutions that each thread keeps, of 200 KiB or so; a size with its numbers of rows has about 25 each.
  // LibTorch keeps 10,000 by itself.
  constexpr char kMostPlans[] = "1000";
  setenv("TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT", kMostPlans, /*overwrite=*/0);
  // LibTorch's CUDA libraries come with it, since it names them and where they are.
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    const std::string error = dlerror();
    if (absl::StartsWith(error, absl::StrCat(kLibrary, ": cannot open shared object file: No such file"))) {
      return absl::NotFoundError(absl::StrCat("this build has no ", kLibrary, ": ", kBuildForCuda));
    }
    return absl::FailedPreconditionError(absl::StrCat(kLibrary, " does not load (", error, "): ", kBuildForCuda));
  }
  const auto* const kernels = static_cast<const DeviceKernels*>(dlsym(library, kKernels));
  ABSL_RETURN_IF_ERROR(CheckKernels(kernels));
  SetKernels(c10::DeviceType::CUDA, kernels);
  if (!at::hasCUDA() || at::getNumGPUs() == 0) {
    return absl::FailedPreconditionError(
        "CUDA finds no device: nvidia-smi must show one to this process, with a driver of 580 or later; or set "
        "device to cpu");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadCuda() {
  static const auto* const status = [] {
    auto* const loaded = new absl::Status(Load());
    if (!loaded->ok() && !absl::IsNotFound(*loaded)) {
      LogWarning("no CUDA: ", loaded->message());
    }
    return loaded;
  }();
  return *status;
}

}  // namespace hotlora
