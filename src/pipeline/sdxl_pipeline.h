#ifndef HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_
#define HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "src/nn/weight_merge.h"
#include "src/pipeline/base_guard.h"
#include "src/pipeline/pipeline.h"
#include "src/sdxl/sdxl_model.h"

namespace hotlora {

// The pipeline over SDXL's networks. Follows diffusers' StableDiffusionXLPipeline (pipeline_stable_diffusion_xl.py) in
// what it computes; if that mixes rows up or rounds (micro-conditioning in half precision), the maths
// decides.
//
// `name` is what ModelInfo calls the model; `dora` says what a request's weight on a DoRA means; `base` is where
// `model` came from, and which adapters are merged into it for good; `conditioning_bytes` is the storage of encoded
// prompts that are kept for further requests (conditioning_cache.h), allocated here; 0: none. FailedPrecondition if the
// checkpoint's scheduler config asks for what sampling does not have; errors of base.adapters.
absl::StatusOr<std::unique_ptr<Pipeline>> MakeSdxlPipeline(std::unique_ptr<SdxlModel> model, std::string name,
                                                           DoraWeighting dora = DoraWeighting::kScaledChange,
                                                           BaseSource base = {}, uint64_t conditioning_bytes = 0);

// For tests that look inside what this pipeline made. Tensors are on the device.
//
// Shapes   latents [1, latent channels, height, width], float32; hidden [1, tokens, cross-attention width]; pooled
//          [1, pooled width]; the negative ones undefined if Encode was asked for no negative side
struct ConditioningTensors {
  at::Tensor hidden, pooled, negative_hidden, negative_pooled;
};
const at::Tensor& RowLatentsForTest(const Row& row);
ConditioningTensors TensorsForTest(const Conditioning& conditioning);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_
