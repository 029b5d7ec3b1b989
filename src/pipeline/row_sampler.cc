#include "src/pipeline/row_sampler.h"

#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/ddim_sampler.h"
#include "src/sampling/dpmpp_2m_sampler.h"
#include "src/sampling/euler_ancestral_sampler.h"
#include "src/sampling/euler_sampler.h"
#include "src/sampling/heun_sampler.h"
#include "src/sampling/lcm_sampler.h"
#include "src/sampling/unipc_sampler.h"

namespace hotlora {

std::unique_ptr<SamplerState> MakeRowSampler(const DenoiseOptions& options, const NoiseSchedule& schedule,
                                             NoiseSource noise) {
  const NoiseScheduleKind kind = options.schedule;
  const auto tail = [&options](auto plan) { return Tail(std::move(plan), options.first_step()); };
  switch (options.sampler) {
    case Sampler::kEuler:
      return std::make_unique<EulerSampler>(tail(schedule.Plan(options.steps, kind)));
    case Sampler::kEulerAncestral:
      return std::make_unique<EulerAncestralSampler>(tail(schedule.Plan(options.steps, kind)), std::move(noise));
    case Sampler::kHeun:
      return std::make_unique<HeunSampler>(tail(schedule.Plan(options.steps, kind)));
    case Sampler::kDdim:
      return std::make_unique<DdimSampler>(tail(schedule.DdimPlan(options.steps, kind)));
    case Sampler::kDpmpp2M:
      return std::make_unique<Dpmpp2MSampler>(tail(schedule.MultistepPlan(options.steps, kind)));
    case Sampler::kDpmpp2MSde:
      return std::make_unique<Dpmpp2MSampler>(tail(schedule.MultistepPlan(options.steps, kind)), std::move(noise));
    case Sampler::kUniPc:
      return std::make_unique<UniPcSampler>(tail(schedule.MultistepPlan(options.steps, kind)));
    case Sampler::kLcm:
      TORCH_CHECK(kind == NoiseScheduleKind::kDefault, "LCM has a schedule of its own");
      return std::make_unique<LcmSampler>(tail(schedule.LcmPlan(options.steps)), std::move(noise));
  }
  TORCH_CHECK(false, "unknown sampler");
}

}  // namespace hotlora
