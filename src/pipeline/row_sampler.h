#ifndef HOTLORA_SRC_PIPELINE_ROW_SAMPLER_H_
#define HOTLORA_SRC_PIPELINE_ROW_SAMPLER_H_

#include <memory>

#include "src/request/image_job.h"
#include "src/sampling/noise_schedule.h"
#include "src/sampling/sampler.h"

namespace hotlora {

// The sampler of one row, at its first step, as the request chose it. `noise` is drawn from as the sampler goes, after
// the noise of the first latents. REQUIRES: `options` is validated; throws c10::Error if it asks for a schedule that
// the sampler does not have.
std::unique_ptr<SamplerState> MakeRowSampler(const DenoiseOptions& options, const NoiseSchedule& schedule,
                                             NoiseSource noise);

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_ROW_SAMPLER_H_
