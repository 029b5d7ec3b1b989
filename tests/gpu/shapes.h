#ifndef HOTLORA_TESTS_GPU_SHAPES_H_
#define HOTLORA_TESTS_GPU_SHAPES_H_

// Networks of SDXL's shapes without a checkpoint: their weights are drawn on the device.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "src/nn/lora_delta.h"
#include "src/nn/parameter_source.h"
#include "src/sdxl/checkpoint_parameters.h"
#include "src/sdxl/sdxl_config.h"
#include "src/sdxl/unet.h"
#include "tests/gpu/probe.h"

namespace hotlora {

// Stock SDXL's config; with a tiny probe one with as many blocks of every kind and a fraction of their width.
SdxlConfig ShapesOf(const Probe& probe);

// Pixels of the picture that a full probe has in mind, or of its stand-in on a tiny one.
int64_t SizeOf(const Probe& probe, int64_t pixels);

// Parameters from the device's own generator, the same on each run: weights of layers are normal with a standard
// deviation of 1 / sqrt(inputs), those of norms 1, biases 0. So outputs keep their size through the network.
class SeededParameters final : public ParameterSource {
 public:
  // Lists what adapters may change in `modules` if it is not null; each parameter then has a clean copy too, which is
  // the live one's twin in `dtype`.
  SeededParameters(c10::Device device, c10::ScalarType dtype, AdaptableModules* modules = nullptr);

  at::Tensor Take(const std::string& name, at::IntArrayRef shape) override;
  AdaptableParameter TakeAdaptable(const std::string& name, at::IntArrayRef shape, WeightOrder) override;
  AdaptableParameter TakeStacked(const std::vector<std::string>& names, at::IntArrayRef shape, WeightOrder) override;

 private:
  void List(const std::string& name, const at::Tensor& live);
  at::Tensor Draw(const std::string& name, at::IntArrayRef shape) const;

  const at::TensorOptions options_;
  AdaptableModules* const modules_;
};

// A batch of a denoising step: normal latents, 77 tokens of text.
UnetInput MakeUnetInput(const UnetConfig& config, int64_t rows, int64_t latent_size, c10::Device device,
                        c10::ScalarType dtype);

// An adapter of one rank on every linear layer of the UNet's transformers (722 of them in SDXL), in the dtype: on the
// CPU, but drawn on the device, which is faster.
AdapterWeights MakeAdapter(const ModuleTable& table, int64_t rank, c10::ScalarType dtype, c10::Device device);

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_SHAPES_H_
