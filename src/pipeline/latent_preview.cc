#include "src/pipeline/latent_preview.h"

#include <ATen/ATen.h>

#include "src/tensor/seeded_noise.h"

namespace hotlora {
namespace {

// Unit normal latents, smooth over several sizes of detail as those of pictures are.
at::Tensor SmoothLatents(int64_t channels, int64_t side) {
  SeededNoise noise(0);
  at::Tensor sum = at::zeros({1, channels, side, side});
  for (const int64_t patches : {side / 16, side / 8, side / 4}) {
    sum += at::upsample_bilinear2d(noise.Draw({1, channels, patches, patches}), {side, side}, /*align_corners=*/false);
  }
  return (sum - sum.mean({2, 3}, true)) / sum.std({2, 3}, 0, true);
}

// [1, channels, height, width] to [height * width, channels + 1], with a column of ones.
at::Tensor Columns(const at::Tensor& latents) {
  const at::Tensor rows = latents.squeeze(0).flatten(1).t();
  return at::cat({rows, at::ones({rows.size(0), 1})}, 1);
}

}  // namespace

LatentPreview::LatentPreview(const VaeDecoder& decoder, c10::Device device) {
  const VaeConfig& config = decoder.config();
  const at::Tensor latents = SmoothLatents(config.latent_channels, kSide);
  const at::Tensor image = decoder.forward(latents.to(device)).to(at::kFloat).cpu();
  const int64_t factor = config.factor();
  const at::Tensor wanted = at::avg_pool2d(image, {factor, factor}).squeeze(0).flatten(1).t().to(at::kDouble);
  const at::Tensor given = Columns(latents).to(at::kDouble);
  // The normal equations of five unknowns, kept solvable where a channel does nothing.
  const at::Tensor square = given.t().mm(given) + at::eye(given.size(1), at::kDouble) * 1e-3;
  weights_ = at::linalg_solve(square, given.t().mm(wanted)).to(at::kFloat);
}

RgbImage LatentPreview::Draw(const at::Tensor& latents) const {
  const at::Tensor pixels = Columns(latents.to(at::kFloat).cpu()).mm(weights_);  // [height * width, 3]
  return ToRgbImage(pixels.t().view({1, 3, latents.size(2), latents.size(3)}));
}

RgbImage ToRgbImage(const at::Tensor& pixels) {
  const at::Tensor bytes = pixels.to(at::kFloat)
                               .div(2)
                               .add(0.5)
                               .clamp(0, 1)
                               .mul(255)
                               .round()
                               .to(at::kByte)
                               .squeeze(0)
                               .permute({1, 2, 0})
                               .contiguous()
                               .cpu();  // [height, width, 3]
  RgbImage image{static_cast<uint32_t>(bytes.size(1)), static_cast<uint32_t>(bytes.size(0)), {}};
  const auto* data = bytes.const_data_ptr<uint8_t>();
  image.pixels.assign(data, data + bytes.numel());
  return image;
}

}  // namespace hotlora
