#include "tests/gpu/kernel_class.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace hotlora {
namespace {

struct Pattern {
  const char* part;  // of the name, in lower case
  KernelClass kernel_class;
};

// The first that is a part of the name decides: a kernel of attention or a convolution is built of parts that are
// called gemm, and a copy is built as an elementwise kernel.
constexpr Pattern kPatterns[] = {
    {"mergekernel", KernelClass::kMerge},
    {"flash", KernelClass::kAttention},
    {"fmha", KernelClass::kAttention},
    {"attention", KernelClass::kAttention},
    {"sdpa", KernelClass::kAttention},
    {"softmax", KernelClass::kAttention},
    {"nchwtonhwc", KernelClass::kLayout},
    {"nhwctonchw", KernelClass::kLayout},
    {"catarray", KernelClass::kLayout},
    {"copy", KernelClass::kLayout},
    {"transpose", KernelClass::kLayout},
    {"fprop", KernelClass::kConvolution},
    {"conv", KernelClass::kConvolution},
    {"winograd", KernelClass::kConvolution},
    {"im2col", KernelClass::kConvolution},
    {"groupnorm", KernelClass::kNorm},
    {"group_norm", KernelClass::kNorm},
    {"layernorm", KernelClass::kNorm},
    {"layer_norm", KernelClass::kNorm},
    {"rowwisemoments", KernelClass::kNorm},
    {"computefusedparams", KernelClass::kNorm},
    {"gemm", KernelClass::kGemm},
    {"nvjet", KernelClass::kGemm},
    {"cublas", KernelClass::kGemm},
    {"splitk", KernelClass::kGemm},
    {"cutlass", KernelClass::kGemm},
    {"elementwise", KernelClass::kElementwise},
    {"reduce_kernel", KernelClass::kElementwise},
    {"fill", KernelClass::kElementwise},
    {"upsample", KernelClass::kElementwise},
};

}  // namespace

const char* NameOf(KernelClass kernel_class) {
  constexpr const char* kNames[] = {"gemm",        "convolution", "attention", "norm",
                                    "elementwise", "layout",      "merge",     "other"};
  static_assert(std::size(kNames) == kEnumSize<KernelClass>);
  return kNames[static_cast<size_t>(kernel_class)];
}

KernelClass ClassOfKernel(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  const auto* const found = std::find_if(std::begin(kPatterns), std::end(kPatterns), [&](const Pattern& pattern) {
    return absl::StrContains(lower, pattern.part);
  });
  return found == std::end(kPatterns) ? KernelClass::kOther : found->kernel_class;
}

}  // namespace hotlora
