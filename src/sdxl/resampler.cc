#include "src/sdxl/resampler.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>

#include "src/nn/attention.h"

namespace hotlora {
namespace {

constexpr double kLayerNormEpsilon = 1e-5;
constexpr int64_t kHeadWidth = 64;  // fixed by the architecture
constexpr auto kNoBias = Linear::Bias::kNone;

}  // namespace

Resampler::Layer::Layer(const ParameterScope& scope, const ImagePromptConfig& config)
    : norm_x(scope.In("0.norm1"), config.width, kLayerNormEpsilon),
      norm_latents(scope.In("0.norm2"), config.width, kLayerNormEpsilon),
      norm_inner(scope.In("1.0"), config.width, kLayerNormEpsilon),
      to_q(scope.In("0.to_q"), config.width, config.query_width, kNoBias),
      to_kv(scope.In("0.to_kv"), config.width, 2 * config.query_width, kNoBias),
      to_out(scope.In("0.to_out"), config.query_width, config.width, kNoBias),
      project_in(scope.In("1.1"), config.width, config.inner_width, kNoBias),
      project_out(scope.In("1.3"), config.inner_width, config.width, kNoBias) {}

at::Tensor Resampler::Layer::forward(const at::Tensor& x, const at::Tensor& latents) const {
  const at::Tensor own = norm_latents.forward(latents), q = to_q.forward(own);
  const std::vector<at::Tensor> kv = to_kv.forward(at::cat({norm_x.forward(x), own}, 1)).chunk(2, -1);
  const at::Tensor found = AttendHeads(q, kv[0], kv[1], q.size(-1) / kHeadWidth);
  const at::Tensor h = to_out.forward(found).add_(latents);
  return project_out.forward(at::gelu(project_in.forward(norm_inner.forward(h)))).add_(h);
}

Resampler::Resampler(const ParameterScope& scope, const ImagePromptConfig& config)
    : latents_(scope.Take("latents", {1, config.tokens, config.width})),
      proj_in_(scope.In("proj_in"), config.encoder_width, config.width),
      proj_out_(scope.In("proj_out"), config.width, config.context_width),
      norm_out_(scope.In("norm_out"), config.context_width, kLayerNormEpsilon) {
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.emplace_back(scope.In("layers", i), config);
  }
}

at::Tensor Resampler::forward(const at::Tensor& x) const {
  const at::Tensor seen = proj_in_.forward(x);  // [n, any, width]
  at::Tensor latents = latents_.expand({x.size(0), -1, -1}).contiguous();
  for (const Layer& layer : layers_) {
    latents = layer.forward(seen, latents);
  }
  return norm_out_.forward(proj_out_.forward(latents));
}

}  // namespace hotlora
