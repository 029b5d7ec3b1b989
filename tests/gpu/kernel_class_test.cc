#include "tests/gpu/kernel_class.h"

#include <string>

#include "gtest/gtest.h"

namespace hotlora {
namespace {

TEST(ClassOfKernelTest, KnowsWhatLibTorchAndItsLibrariesLaunch) {
  const struct {
    const char* name;
    const char* kernel_class;
  } cases[] = {
      {"nvjet_hsh_128x256_64x4_1x2_h_bz_coopB_TNT", "gemm"},
      {"sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x32", "gemm"},
      {"void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_64x2_tn_align8>(Params)", "gemm"},
      {"void cublasLt::splitKreduce_kernel<32, 16, int>(cublasSplitKParams<float>)", "gemm"},
      {"sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64", "convolution"},
      {"void cudnn::winograd_nonfused::winogradForwardData4x4<float, float>", "convolution"},
      {"cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x64x64", "attention"},
      {"void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", "attention"},
      {"fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "attention"},
      {"void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<c10::BFloat16>", "norm"},
      {"void at::native::(anonymous namespace)::ComputeFusedParamsCUDAKernel<c10::Half>", "norm"},
      {"void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::Half, float>", "norm"},
      {"void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl>", "elementwise"},
      {"void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>", "layout"},
      {"void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16, __nv_bfloat16, float, false, true>", "layout"},
      {"void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>", "layout"},
      {"_ZN7hotlora12_GLOBAL__N_111MergeKernelI13__nv_bfloat16EEvPKNS_9MergeTaskE", "merge"},
      {"copy", "layout"},
      {"copy of a value", "layout"},
      {"something_new", "other"},
      {"", "other"},
  };
  for (const auto& [name, kernel_class] : cases) {
    EXPECT_STREQ(NameOf(ClassOfKernel(name)), kernel_class) << name;
  }
}

}  // namespace
}  // namespace hotlora
