#ifndef HOTLORA_TESTS_GPU_KERNEL_CLASS_H_
#define HOTLORA_TESTS_GPU_KERNEL_CLASS_H_

#include <iterator>

#include "absl/strings/string_view.h"

#include "src/base/enum_size.h"

namespace hotlora {

// What a kernel of a step is for.
enum class KernelClass { kGemm, kConvolution, kAttention, kNorm, kElementwise, kLayout, kMerge, kOther };

// "gemm", "convolution", ...
const char* NameOf(KernelClass kernel_class);

// The class of a kernel of LibTorch, its libraries or hotlora, by the name that CUDA gives it, mangled or not.
KernelClass ClassOfKernel(absl::string_view name);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_KERNEL_CLASS_H_
