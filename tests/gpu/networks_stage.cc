// What SDXL's networks take at full size, one by one: UNet, text encoders, VAE decoder, and attention by each of
// LibTorch's ways to compute it.

#include <array>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include "src/sdxl/text_encoder.h"
#include "src/sdxl/unet.h"
#include "src/sdxl/vae_decoder.h"
#include "src/tensor/allocation_peak.h"
#include "src/tensor/device.h"
#include "tests/gpu/measure.h"
#include "tests/gpu/shapes.h"
#include "tests/gpu/stages.h"

namespace hotlora {
namespace {

constexpr std::array<c10::ScalarType, 2> kHalfDtypes = {at::kHalf, at::kBFloat16};

// Times `forward`, which returns the network's output, and checks that the output is finite.
template <typename Forward>
void MeasureNetwork(Probe& probe, const std::string& name, const Repeats& repeats, Forward forward) {
  if (!HasTime(probe, name)) {
    return;
  }
  const AllocationPeak peak;
  at::Tensor output;
  const Times times = Measure(probe, probe.tiny() ? Repeats{1, 2, 0.2} : repeats, [&] { output = forward(); });
  AddTimes(probe, name, times);
  probe.AddFigure(absl::StrCat(name, ".peak"), "bytes", static_cast<double>(peak.bytes()));
  probe.AddCheck(absl::StrCat(name, ".finite"), at::isfinite(output).all().item<bool>());
}

struct UnetCell {
  int64_t rows, pixels;
};
// The most wanted first, as the time limit cuts the rest. Two rows are one image under guidance.
constexpr UnetCell kUnetCells[] = {{2, 1024}, {2, 512},  {1, 1024}, {4, 1024}, {8, 1024},
                                   {3, 1024}, {6, 1024}, {5, 1024}, {7, 1024}};

struct AttentionShape {
  const char* name;
  int64_t heads, queries, keys;
};
// Two rows at 1024x1024, 64 numbers a head.
constexpr AttentionShape kAttentions[] = {{"self_640", 10, 4096, 4096},
                                          {"self_1280", 20, 1024, 1024},
                                          {"cross_640", 10, 4096, 77},
                                          {"cross_1280", 20, 1024, 77}};

struct Backend {
  const char* name;
  at::SDPBackend backend;
  bool cuda_only;
};
constexpr Backend kBackends[] = {{"flash", at::SDPBackend::flash_attention, false},
                                 {"cudnn", at::SDPBackend::cudnn_attention, true},
                                 {"efficient", at::SDPBackend::efficient_attention, true},
                                 {"math", at::SDPBackend::math, false}};

// Allows one way to compute attention alone; all that were allowed when it goes.
class OnlyBackend {
 public:
  explicit OnlyBackend(at::SDPBackend backend) { Allow(backend); }
  ~OnlyBackend() {
    at::Context& context = at::globalContext();
    context.setSDPUseFlash(flash_);
    context.setSDPUseMemEfficient(efficient_);
    context.setSDPUseMath(math_);
    context.setSDPUseCuDNN(cudnn_);
  }
  OnlyBackend(const OnlyBackend&) = delete;
  OnlyBackend& operator=(const OnlyBackend&) = delete;

 private:
  static void Allow(at::SDPBackend backend) {
    at::Context& context = at::globalContext();
    context.setSDPUseFlash(backend == at::SDPBackend::flash_attention);
    context.setSDPUseMemEfficient(backend == at::SDPBackend::efficient_attention);
    context.setSDPUseMath(backend == at::SDPBackend::math);
    context.setSDPUseCuDNN(backend == at::SDPBackend::cudnn_attention);
  }

  const bool flash_ = at::globalContext().userEnabledFlashSDP();
  const bool efficient_ = at::globalContext().userEnabledMemEfficientSDP();
  const bool math_ = at::globalContext().userEnabledMathSDP();
  const bool cudnn_ = at::globalContext().userEnabledCuDNNSDP();
};

// The worst difference between the way's result and that of plain products in float32.
double AttentionError(const at::Tensor& got, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const OnlyBackend math(at::SDPBackend::math);
  // One row and head: the scores of all would take gigabytes.
  const auto one = [](const at::Tensor& tensor) { return tensor.narrow(0, 0, 1).narrow(1, 0, 1).to(at::kFloat); };
  const at::Tensor expected = at::scaled_dot_product_attention(one(q), one(k), one(v));
  return (one(got) - expected).abs().max().item<double>();
}

void MeasureAttention(Probe& probe, const AttentionShape& shape, c10::ScalarType dtype) {
  const at::TensorOptions options = at::TensorOptions(dtype).device(probe.device());
  const int64_t shrink = probe.tiny() ? 64 : 1;
  const int64_t queries = shape.queries / shrink, keys = shape.keys == 77 ? 77 : shape.keys / shrink;
  const auto draw = [&](int64_t tokens) { return at::randn({2, shape.heads, tokens, 64}, options); };
  const at::Tensor q = draw(queries), k = draw(keys), v = draw(keys);
  const std::string name = absl::StrCat("sdpa.", DtypeName(dtype), ".", shape.name);
  // The outputs are averages of values of size 1; a half dtype rounds weights and values.
  const double tolerance = dtype == at::kHalf ? 4e-3 : 3e-2;
  const auto measure = [&](const std::string& part) {
    if (!HasTime(probe, part)) {
      return;
    }
    try {
      at::Tensor output;
      const Times times = Measure(probe, {2, 20, 1}, [&] { output = at::scaled_dot_product_attention(q, k, v); });
      AddTimes(probe, part, times);
      probe.AddCheck(absl::StrCat(part, ".error"), AttentionError(output, q, k, v), tolerance);
    } catch (const c10::Error& error) {
      probe.LeaveOut(part, error.msg().substr(0, 300));
    }
  };
  measure(absl::StrCat(name, ".default"));
  for (const Backend& backend : kBackends) {
    const std::string part = absl::StrCat(name, ".", backend.name);
    if (backend.cuda_only && !probe.device().is_cuda()) {
      probe.LeaveOut(part, "LibTorch has this way for CUDA alone");
      continue;
    }
    const OnlyBackend only(backend.backend);
    measure(part);
  }
}

}  // namespace

absl::Status RunUnet(Probe& probe) {
  const c10::InferenceMode inference;
  const UnetConfig config = ShapesOf(probe).unet;
  // Both networks at once, so that the most wanted cells of both come first.
  std::vector<Unet> networks;
  for (const c10::ScalarType dtype : kHalfDtypes) {
    SeededParameters parameters(probe.device(), dtype);
    networks.emplace_back(ParameterScope(parameters), config);
  }
  for (const UnetCell& cell : kUnetCells) {
    for (size_t i = 0; i < kHalfDtypes.size(); ++i) {
      const UnetInput input =
          MakeUnetInput(config, cell.rows, SizeOf(probe, cell.pixels) / 8, probe.device(), kHalfDtypes[i]);
      MeasureNetwork(probe, absl::StrCat("unet.", DtypeName(kHalfDtypes[i]), ".", cell.pixels, ".rows_", cell.rows),
                     {2, 10, 1.5}, [&] { return networks[i].forward(input); });
    }
  }
  return absl::OkStatus();
}

absl::Status RunAttention(Probe& probe) {
  const c10::InferenceMode inference;
  for (const AttentionShape& shape : kAttentions) {
    for (const c10::ScalarType dtype : kHalfDtypes) {
      MeasureAttention(probe, shape, dtype);
    }
  }
  return absl::OkStatus();
}

absl::Status RunText(Probe& probe) {
  const c10::InferenceMode inference;
  const SdxlConfig config = ShapesOf(probe);
  for (const c10::ScalarType dtype : kHalfDtypes) {
    SeededParameters parameters(probe.device(), dtype);
    const TextEncoder first(ParameterScope(parameters), config.text_encoder);
    const TextEncoder second(ParameterScope(parameters), config.text_encoder_2);
    for (const int64_t prompts : {1, 2}) {
      // Every prompt ends in the end token.
      at::Tensor ids = at::randint(1, 40000, {prompts, 77}, at::TensorOptions(at::kLong));
      ids.index_put_({at::indexing::Slice(), 76}, config.text_encoder.vocab_size - 1);
      MeasureNetwork(probe, absl::StrCat("text.", DtypeName(dtype), ".prompts_", prompts), {2, 20, 1.5}, [&] {
        const at::Tensor hidden = first.forward(ids, 0).hidden;
        return at::cat({hidden, second.forward(ids, 0).hidden}, -1);
      });
    }
  }
  return absl::OkStatus();
}

absl::Status RunVae(Probe& probe) {
  const c10::InferenceMode inference;
  const VaeConfig config = ShapesOf(probe).vae;
  for (const c10::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    // As served beside networks of a half dtype.
    SetFloat32Precision(at::kHalf);
    SeededParameters parameters(probe.device(), dtype);
    const VaeDecoder decoder(ParameterScope(parameters), config);
    for (const int64_t pixels : {1024, 512}) {
      const int64_t size = SizeOf(probe, pixels) / config.factor();
      const at::Tensor latents =
          at::randn({1, config.latent_channels, size, size}, at::TensorOptions(at::kFloat).device(probe.device()));
      MeasureNetwork(probe, absl::StrCat("vae.", DtypeName(dtype), ".", pixels), {2, 10, 2},
                     [&] { return decoder.forward(latents); });
    }
  }
  return absl::OkStatus();
}

}  // namespace hotlora
