// Golden pictures of diffusers with ControlNets and image prompts: the networks, samplers and guidance of this server,
// driven as a step drives them.

#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/image/image_decoder.h"
#include "src/image/resize.h"
#include "src/pipeline/init_latents.h"
#include "src/pipeline/latent_preview.h"
#include "src/pipeline/row_sampler.h"
#include "src/sampling/guidance.h"
#include "src/sampling/scheduler_config.h"
#include "src/sdxl/controlnet_file.h"
#include "src/tensor/seeded_noise.h"
#include "tests/golden_controlnets.h"
#include "tests/pipeline/golden_request.h"
#include "tests/pipeline/pipeline_fixture.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

// One entry of a case's "control".
struct Control {
  const ControlNet* net;
  ControlHint hint;
  double start, end;

  // In evaluation `index` of `count`, as diffusers says it.
  bool InForce(double index, double count) const { return !(index / count < start || (index + 1) / count > end); }
};

// One entry of a case's "image_prompts": what both rows see of it.
struct GoldenPrompt {
  std::vector<at::Tensor> negative, positive;
  std::vector<double> scales;
};

class NetworksGoldenTest : public PipelineFixture {
 protected:
  const ControlNet& Net(const std::string& name) {
    std::shared_ptr<const PlacedControlNet>& net = nets_[name];
    if (net == nullptr) {
      auto loaded = LoadControlNet(WriteControlNetFolder(name, folder_.Under(name)), model_->config(), TestPlace());
      TORCH_CHECK(loaded.ok(), loaded.status().ToString());
      net = *std::move(loaded);
    }
    return net->network;
  }

  const ImagePrompt& Prompt(const std::string& file) {
    std::shared_ptr<const PlacedImagePrompt>& prompt = prompts_[file];
    if (prompt == nullptr) {
      auto loaded = LoadImagePrompt(GoldenPath("image_prompt/" + file), model_->config(), TestPlace());
      TORCH_CHECK(loaded.ok(), loaded.status().ToString());
      prompt = *std::move(loaded);
    }
    return prompt->network;
  }

  const ImageEncoder& Encoder() {
    if (encoder_ == nullptr) {
      auto loaded = LoadImageEncoder(GoldenPath("image_prompt/image_encoder"), TestPlace());
      TORCH_CHECK(loaded.ok(), loaded.status().ToString());
      encoder_ = *std::move(loaded);
    }
    return encoder_->network;
  }

  std::vector<GoldenPrompt> ImagePromptsOf(const nlohmann::json& golden) {
    std::vector<GoldenPrompt> uses;
    for (const nlohmann::json& entry : golden.value("image_prompts", nlohmann::json::array())) {
      const ImagePrompt& prompt = Prompt(entry.at("adapter"));
      std::vector<at::Tensor> pictures;
      for (const nlohmann::json& name : entry.at("images")) {
        const RgbImage square =
            CoverSquare(Decode("image_prompt/" + name.get<std::string>()), Encoder().config().square());
        pictures.push_back(Pixels(square).clone());
      }
      const at::Tensor pixels = Encoder().Normalize(at::stack(pictures).to(model_->place().device));
      GoldenPrompt use;
      const EncodedPictures zeros = Encoder().Encode(at::zeros_like(pixels.narrow(0, 0, 1)));
      use.positive = prompt.ProjectTokens(prompt.TokensOf(Encoder().Encode(pixels)));
      use.negative = prompt.ProjectTokens(prompt.TokensOfNone(zeros, static_cast<int64_t>(pictures.size())));
      use.scales = ScalesOf(entry);
      uses.push_back(std::move(use));
    }
    return uses;
  }

  // With rules a cross attention has the weight of the one that fits it, in these cases one at most, else 0.
  std::vector<double> ScalesOf(const nlohmann::json& entry) {
    std::vector<double> scales;
    for (const CrossAttentionPlace& place : CrossAttentions(model_->config())) {
      scales.push_back(entry.contains("block_rules") ? 0.0 : entry.at("scale").get<double>());
      for (const nlohmann::json& rule : entry.value("block_rules", nlohmann::json::array())) {
        if (place.path.rfind(rule.at("prefix").get<std::string>() + ".", 0) == 0) {
          scales.back() = rule.at("weight");
        }
      }
    }
    return scales;
  }

  static RgbImage Decode(const std::string& file) {
    const auto decoded = DecodeImage(GoldenFile(file));
    TORCH_CHECK(decoded.ok(), decoded.status().ToString());
    return *decoded;
  }

  std::vector<Control> ControlsOf(const nlohmann::json& golden, const DenoiseOptions& options) {
    std::vector<Control> controls;
    for (const nlohmann::json& entry : golden.value("control", nlohmann::json::array())) {
      const std::string net = entry.at("net"),
                        file = entry.at("image");  // "nets/NAME", "NAME.png", perhaps in a folder
      const RgbImage image =
          ResizeLanczos(Decode("control/" + file.substr(file.rfind('/') + 1)), options.width, options.height);
      const at::Tensor picture =
          Pixels(image).permute({2, 0, 1}).unsqueeze(0).to(model_->place().device, at::kFloat) / 255;
      const ControlNet& loaded = Net(net.substr(net.rfind('/') + 1));
      controls.push_back({&loaded,
                          {loaded.EmbedHint(picture), entry.at("scale"), entry.value("control_type", int64_t{0})},
                          entry.at("start"),
                          entry.at("end")});
    }
    return controls;
  }

  // The residuals of all entries in force in the evaluation.
  static std::vector<ControlledRows> ControlOf(const std::vector<Control>& controls, const UnetInput& input,
                                               double index, double count) {
    std::map<const ControlNet*, std::vector<ControlHint>> of_union;
    std::vector<ControlledRows> residuals;
    const int64_t rows = input.sample.size(0);
    for (const Control& control : controls) {
      if (!control.InForce(index, count)) {
        continue;
      }
      if (control.net->config().types.has_value()) {
        of_union[control.net].push_back(control.hint);
      } else {
        residuals.push_back({0, control.net->forward(input, ControlledImage{rows, {control.hint}})});
      }
    }
    for (const auto& [net, hints] : of_union) {
      residuals.push_back({0, net->forward(input, ControlledImage{rows, hints})});
    }
    return residuals;
  }

  // The last latents of image number `image` of a case.
  at::Tensor Run(const nlohmann::json& golden, const AdapterSet& set, int64_t image) {
    const ImageJob job = Job(MakeGoldenRequest(golden));
    const DenoiseOptions& options = job.denoise;
    const c10::Device device = model_->place().device;
    const auto conditioning = pipeline_->Encode(job.prompts, options.cfg(), set, ApplyMode::kMerged);
    TORCH_CHECK(conditioning.ok(), conditioning.status().ToString());
    const ConditioningTensors text = TensorsForTest(**conditioning);
    const std::vector<Control> controls = ControlsOf(golden, options);
    const std::vector<GoldenPrompt> prompts = ImagePromptsOf(golden);
    SeededNoise noise(job.seed + image);
    const NoiseSchedule schedule(ParseSchedulerConfig(model_->scheduler_config()).value());
    const auto sampler =
        MakeRowSampler(options, schedule, [&noise](at::IntArrayRef shape) { return noise.Draw(shape); });
    std::optional<InitRow> init;
    at::Tensor latents;
    if (const auto picture = Init(job); picture != nullptr) {
      init = StartInitRow(static_cast<const SdxlInitLatents&>(*picture), model_->vae_encoder(), noise);
      latents = FirstLatents(*init, options.strength, *sampler);
    } else {
      latents = noise.Draw({1, 4, options.height / 8, options.width / 8}).to(device) * sampler->init_noise_sigma();
    }
    const auto rows = [&](const at::Tensor& negative, const at::Tensor& positive) {
      return options.cfg() ? at::cat({negative, positive}) : positive;
    };
    const auto ids = [&](const SizeIds& values) {
      return at::tensor(at::ArrayRef<float>(values)).view({1, 6}).to(device);
    };
    const double evaluations = golden.at("model_calls");
    for (double i = 0; sampler->steps_done() < sampler->total_steps(); ++i) {
      const at::Tensor sample = sampler->ScaleInput(latents);
      UnetInput input;
      input.sample = rows(sample, sample);
      input.encoder_hidden_states = rows(text.negative_hidden, text.hidden);
      input.pooled = rows(text.negative_pooled, text.pooled);
      input.time_ids = rows(ids(options.negative_size_ids), ids(options.size_ids));
      input.timesteps = at::full({input.sample.size(0)}, sampler->timestep(), latents.options());
      input.control = ControlOf(controls, input, i, evaluations);
      for (const GoldenPrompt& prompt : prompts) {
        if (options.cfg()) {
          AddImagePrompt(0, prompt.negative, prompt.scales, input.image);
        }
        AddImagePrompt(options.cfg() ? 1 : 0, prompt.positive, prompt.scales, input.image);
      }
      at::Tensor prediction = model_->unet().forward(input);
      if (options.cfg()) {
        prediction = Guide(prediction.narrow(0, 0, 1), prediction.narrow(0, 1, 1), options.guidance_scale, 0.0);
      }
      latents = sampler->Step(latents, prediction);
      if (init.has_value()) {
        latents = init->Keep(latents, *sampler);
      }
    }
    return latents;
  }

  void ExpectPictures(const std::string& folder, const nlohmann::json& golden) {
    const std::string name = golden.at("name");
    std::vector<std::pair<std::string, double>> adapters;
    for (const nlohmann::json& adapter : golden.at("adapters")) {
      adapters.emplace_back(AdapterName(adapter.at("file")), adapter.at("scale"));
    }
    const TensorMap expected = LoadTensors(GoldenPath(absl::StrCat(folder, "/", golden.at("file").get<std::string>())));
    for (size_t i = 0; i < golden.at("images").size(); ++i) {
      const auto image = static_cast<int64_t>(i);
      const at::Tensor latents = Run(golden, Set(adapters), image);
      ExpectWithin(latents, expected.at("latents").narrow(0, image, 1),
                   golden.at("tolerance").at("latents").at("absolute"), name + " latents");
      const RgbImage decoded = ToRgbImage(model_->vae_decoder().forward(latents));
      const RgbImage picture = Decode(absl::StrCat(folder, "/", golden.at("images").at(i).get<std::string>()));
      ExpectWithin(Pixels(decoded), Pixels(picture), 1, name + " pixels");
    }
  }

  TemporaryFolder folder_;
  std::map<std::string, std::shared_ptr<const PlacedControlNet>> nets_;
  std::map<std::string, std::shared_ptr<const PlacedImagePrompt>> prompts_;
  std::shared_ptr<const PlacedImageEncoder> encoder_;
};

TEST_F(NetworksGoldenTest, PicturesEqualTheReference) {
  c10::InferenceMode guard;
  for (const auto& [folder, expected_cases] : {std::pair("control", 22), {"image_prompt", 14}}) {
    std::ifstream stream(GoldenPath(absl::StrCat(folder, "/manifest.json")));
    const nlohmann::json manifest = nlohmann::json::parse(stream);
    int cases = 0;
    for (const nlohmann::json& golden : manifest.at("cases")) {
      if (golden.contains("arguments")) {  // a whole run
        ++cases;
        ExpectPictures(folder, golden);
      }
    }
    EXPECT_EQ(cases, expected_cases) << folder;
  }
}

}  // namespace
}  // namespace hotlora
