#ifndef HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_
#define HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/pipeline/pipeline.h"
#include "src/sdxl/sdxl_model.h"
#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// The pipeline over SDXL's networks. Follows diffusers' StableDiffusionXLPipeline (pipeline_stable_diffusion_xl.py) in
// what it computes; where that mixes rows up or rounds (micro-conditioning in half precision, facts C5), the maths
// decides.
//
// `name` is what ModelInfo calls the model. FailedPrecondition where the checkpoint's scheduler config asks for what
// sampling does not have.
absl::StatusOr<std::unique_ptr<Pipeline>> MakeSdxlPipeline(std::unique_ptr<SdxlModel> model, std::string name);

// The latents of a row that MakeSdxlPipeline's pipeline made: [1, latent channels, height, width], float32, on the
// device. For tests that look inside.
const at::Tensor& RowLatents(const Row& row);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_SDXL_PIPELINE_H_
