#ifndef HOTLORA_SRC_SAMPLING_GUIDANCE_H_
#define HOTLORA_SRC_SAMPLING_GUIDANCE_H_

#include "src/tensor/tensor_fwd.h"

namespace hotlora {

// Classifier-free guidance, with the contrast correction of arXiv 2305.08891 (eq. 15, 16) if
// `rescale` is above 0:
//
//   guided = negative + scale * (positive - negative)
//   result = rescale * guided * std(positive) / std(guided) + (1 - rescale) * guided
//
// The deviations are over all dimensions but the first.
//
// Shapes   positive, negative alike: [batch, 4, height / 8, width / 8]
// Dtypes   any; the result is float32
// Source   Ho and Salimans 2022, arXiv 2207.12598; diffusers rescale_noise_cfg
at::Tensor Guide(const at::Tensor& negative, const at::Tensor& positive, double scale, double rescale);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SAMPLING_GUIDANCE_H_
