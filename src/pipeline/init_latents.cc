#include "src/pipeline/init_latents.h"

#include <ATen/ATen.h>

namespace hotlora {
namespace {

at::Tensor Bytes(const std::vector<uint8_t>& bytes, at::IntArrayRef shape, c10::Device device) {
  return at::from_blob(const_cast<uint8_t*>(bytes.data()), shape, at::kByte).to(device).to(at::kFloat);
}

at::Tensor Blend(const at::Tensor& repaint, const at::Tensor& kept, const at::Tensor& painted) {
  return (1 - repaint) * kept + repaint * painted;
}

}  // namespace

SdxlInitLatents EncodeInitPicture(const VaeEncoder& encoder, const InitPicture& picture, VaeForm form, int64_t factor,
                                  c10::Device device) {
  const int64_t height = picture.image.height, width = picture.image.width;
  const at::Tensor pixels = Bytes(picture.image.pixels, {1, height, width, 3}, device);
  SdxlInitLatents init;
  const at::Tensor image = pixels.permute({0, 3, 1, 2}).div(255).mul_(2).sub_(1);
  init.posterior = form == VaeForm::kTiled ? encoder.forward_tiled(image) : encoder.forward(image);
  if (!picture.repaint.empty()) {
    const at::Tensor mask = Bytes(picture.repaint, {1, 1, height, width}, device);
    init.repaint = mask.slice(2, 0, height, factor).slice(3, 0, width, factor).contiguous();
  }
  return init;
}

at::Tensor InitRow::Keep(const at::Tensor& latents, const SamplerState& sampler) const {
  return repaint.defined() ? Blend(repaint, sampler.AddNoise(image, noise), latents) : latents;
}

at::Tensor InitRow::KeepClean(const at::Tensor& clean) const {
  return repaint.defined() ? Blend(repaint, image, clean) : clean;
}

InitRow StartInitRow(const SdxlInitLatents& init, const VaeEncoder& encoder, SeededNoise& noise) {
  const at::IntArrayRef shape = init.posterior.mean.sizes();
  InitRow row;
  row.image = encoder.Sample(init.posterior, noise.Draw(shape)).to(at::kFloat);
  row.noise = noise.Draw(shape).to(row.image.device());
  if (init.repaint.defined()) {
    noise.Draw(shape);
    row.repaint = init.repaint;
  }
  return row;
}

at::Tensor FirstLatents(const InitRow& row, double strength, const SamplerState& sampler) {
  if (row.repaint.defined() && strength == 1.0) {
    return row.noise * sampler.init_noise_sigma();
  }
  return sampler.AddNoise(row.image, row.noise);
}

}  // namespace hotlora
