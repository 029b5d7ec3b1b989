#include "src/pipeline/row_sampler.h"

#include <utility>

#include <ATen/ATen.h>

#include "src/sampling/ddim_sampler.h"
#include "src/sampling/deis_sampler.h"
#include "src/sampling/dpm2_sampler.h"
#include "src/sampling/dpmpp_2s_sampler.h"
#include "src/sampling/dpmpp_multistep_sampler.h"
#include "src/sampling/euler_ancestral_sampler.h"
#include "src/sampling/euler_sampler.h"
#include "src/sampling/heun_sampler.h"
#include "src/sampling/lcm_sampler.h"
#include "src/sampling/lms_sampler.h"
#include "src/sampling/unipc_sampler.h"

namespace hotlora {

std::unique_ptr<SamplerState> MakeRowSampler(const DenoiseOptions& options, const NoiseSchedule& schedule,
                                             NoiseSource noise) {
  const NoiseScheduleKind kind = options.schedule;
  const auto tail = [&options](auto whole) { return Tail(std::move(whole), options.first_step()); };
  const auto plan = [&] { return tail(schedule.Plan(options.steps, kind)); };
  const auto dpm2 = [&] { return tail(schedule.Dpm2Plan(options.steps, kind)); };
  const auto multistep = [&] { return tail(schedule.MultistepPlan(options.steps, kind)); };
  switch (options.sampler) {
    case Sampler::kEuler:
      return std::make_unique<EulerSampler>(plan());
    case Sampler::kEulerAncestral:
      return std::make_unique<EulerAncestralSampler>(plan(), std::move(noise));
    case Sampler::kHeun:
      return std::make_unique<HeunSampler>(plan());
    case Sampler::kDdim:
      return std::make_unique<DdimSampler>(tail(schedule.DdimPlan(options.steps, kind, options.eta)), std::move(noise));
    case Sampler::kDpmpp2M:
      return std::make_unique<DpmppMultistepSampler>(multistep(), 2);
    case Sampler::kDpmpp2MSde:
      return std::make_unique<DpmppMultistepSampler>(multistep(), 2, std::move(noise));
    case Sampler::kUniPc:
      return std::make_unique<UniPcSampler>(multistep());
    case Sampler::kLcm:
      TORCH_CHECK(kind == NoiseScheduleKind::kDefault, "LCM has a schedule of its own");
      return std::make_unique<LcmSampler>(tail(schedule.LcmPlan(options.steps)), std::move(noise));
    case Sampler::kTcd:
      TORCH_CHECK(kind == NoiseScheduleKind::kDefault, "TCD has a schedule of its own");
      return std::make_unique<DdimSampler>(tail(schedule.TcdPlan(options.steps, options.eta)), std::move(noise));
    case Sampler::kDpm2:
      return std::make_unique<Dpm2Sampler>(dpm2(), schedule);
    case Sampler::kDpm2Ancestral:
      return std::make_unique<Dpm2Sampler>(dpm2(), schedule, std::move(noise));
    case Sampler::kLms:
      return std::make_unique<LmsSampler>(plan());
    case Sampler::kDeis:
      return std::make_unique<DeisSampler>(tail(schedule.DeisPlan(options.steps, kind)));
    case Sampler::kDpmpp2S:
      return std::make_unique<Dpmpp2SSampler>(tail(schedule.SinglestepPlan(options.steps, kind)));
    case Sampler::kDpmpp3M:
      return std::make_unique<DpmppMultistepSampler>(multistep(), 3);
    case Sampler::kDpmpp3MSde:
      return std::make_unique<DpmppMultistepSampler>(multistep(), 3, std::move(noise));
  }
  TORCH_CHECK(false, "unknown sampler");
}

}  // namespace hotlora
