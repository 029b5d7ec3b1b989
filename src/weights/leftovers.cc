#include "src/weights/leftovers.h"

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"

#include "src/base/logging.h"

namespace hotlora {
namespace {

// LatentDiffusion's buffers.
constexpr absl::string_view kScheduleBuffers[] = {
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "lvlb_weights",
    "logvar",
    "scale_factor",
};

// Both OpenCLIP and transformers write these names.
bool IsLeftoverOfClip(absl::string_view name) {
  const size_t dot = name.rfind('.');
  const absl::string_view last = dot == absl::string_view::npos ? name : name.substr(dot + 1);
  return last == "position_ids" || last == "logit_scale" || last == "attn_mask";
}

}  // namespace

bool IsLeftoverOfVae(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "first_stage_model.")) {
    absl::ConsumePrefix(&name, "vae.");
  }
  return absl::StartsWith(name, "loss.") || absl::StartsWith(name, "model_ema.");
}

bool IsLeftoverOfFolder(absl::string_view component, absl::string_view name) {
  if (component == "vae") {
    return IsLeftoverOfVae(name);
  }
  if (component == "image_encoder") {
    return IsLeftoverOfClip(name) || absl::StartsWith(name, "text_model.") ||
           absl::StartsWith(name, "text_projection.");
  }
  if (component != "text_encoder" && component != "text_encoder_2") {
    return false;
  }
  return IsLeftoverOfClip(name) || absl::StartsWith(name, "vision_model.") ||
         absl::StartsWith(name, "visual_projection.") ||
         (component == "text_encoder" && name == "text_projection.weight");
}

bool IsLeftoverOfSingleFile(absl::string_view name) {
  for (const absl::string_view prefix : {"model_ema.", "denoiser.", "cond_stage_model.", "embedding_manager."}) {
    if (absl::StartsWith(name, prefix)) {
      return true;
    }
  }
  if (absl::StartsWith(name, "first_stage_model.")) {
    return IsLeftoverOfVae(name);
  }
  if (absl::StartsWith(name, "conditioner.")) {
    return IsLeftoverOfClip(name) || name == "conditioner.embedders.0.transformer.text_projection.weight";
  }
  return absl::c_linear_search(kScheduleBuffers, name);
}

void LeftoverCount::Add(absl::string_view name) {
  if (count_ == 0 || name < first_) {
    first_ = std::string(name);
  }
  ++count_;
}

void LeftoverCount::Log(absl::string_view file) const {
  if (count_ > 0) {
    LogInfo(file, ": passed over ", count_, count_ == 1 ? " tensor" : " tensors",
            " that no network uses, the first is ", first_);
  }
}

}  // namespace hotlora
