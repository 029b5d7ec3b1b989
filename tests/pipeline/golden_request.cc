#include "tests/pipeline/golden_request.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/image/image_decoder.h"
#include "src/image/image_encoder.h"
#include "src/image/resize.h"
#include "tests/golden_path.h"

namespace hotlora {
namespace {

// diffusers' size arguments are (height, width).
SizeConditioning MakeSize(const nlohmann::json& arguments, const std::string& prefix) {
  SizeConditioning size;
  const auto pair = [&arguments, &prefix](const char* name) { return arguments.at(prefix + name); };
  size.original_height = pair("original_size")[0];
  size.original_width = pair("original_size")[1];
  size.crop_top = pair("crops_coords_top_left")[0];
  size.crop_left = pair("crops_coords_top_left")[1];
  size.target_height = pair("target_size")[0];
  size.target_width = pair("target_size")[1];
  return size;
}

// What a golden case calls its scheduler.
const std::map<std::string, std::pair<Sampler, NoiseScheduleKind>>& SchedulersByName() {
  static const auto* const kSchedulers = new std::map<std::string, std::pair<Sampler, NoiseScheduleKind>>{
      {"euler", {Sampler::kEuler, NoiseScheduleKind::kDefault}},
      {"euler_trailing", {Sampler::kEuler, NoiseScheduleKind::kTrailing}},
      {"euler_ancestral", {Sampler::kEulerAncestral, NoiseScheduleKind::kDefault}},
      {"heun", {Sampler::kHeun, NoiseScheduleKind::kDefault}},
      {"ddim", {Sampler::kDdim, NoiseScheduleKind::kDefault}},
      {"dpmpp_2m_karras", {Sampler::kDpmpp2M, NoiseScheduleKind::kKarras}},
      {"dpmpp_2m_sde", {Sampler::kDpmpp2MSde, NoiseScheduleKind::kDefault}},
      {"unipc", {Sampler::kUniPc, NoiseScheduleKind::kDefault}},
      {"lcm", {Sampler::kLcm, NoiseScheduleKind::kDefault}},
      {"tcd_stochastic", {Sampler::kTcd, NoiseScheduleKind::kDefault}},
      {"tcd_eta_0", {Sampler::kTcd, NoiseScheduleKind::kDefault}},
      {"kdpm2", {Sampler::kDpm2, NoiseScheduleKind::kDefault}},
      {"kdpm2_ancestral", {Sampler::kDpm2Ancestral, NoiseScheduleKind::kDefault}},
      {"lms", {Sampler::kLms, NoiseScheduleKind::kDefault}},
      {"deis", {Sampler::kDeis, NoiseScheduleKind::kDefault}},
      {"dpmpp_2s", {Sampler::kDpmpp2S, NoiseScheduleKind::kDefault}},
      {"dpmpp_3m", {Sampler::kDpmpp3M, NoiseScheduleKind::kDefault}},
      {"dpmpp_3m_sde", {Sampler::kDpmpp3MSde, NoiseScheduleKind::kDefault}},
      {"euler_beta", {Sampler::kEuler, NoiseScheduleKind::kBeta}},
      {"euler_exponential", {Sampler::kEuler, NoiseScheduleKind::kExponential}},
      {"euler_ays", {Sampler::kEuler, NoiseScheduleKind::kAys}},
      {"dpmpp_2m_beta", {Sampler::kDpmpp2M, NoiseScheduleKind::kBeta}},
      {"dpmpp_2m_exponential", {Sampler::kDpmpp2M, NoiseScheduleKind::kExponential}},
      {"dpmpp_2m_lu", {Sampler::kDpmpp2M, NoiseScheduleKind::kLu}},
      {"dpmpp_2m_ays", {Sampler::kDpmpp2M, NoiseScheduleKind::kAys}}};
  return *kSchedulers;
}

}  // namespace

std::string GoldenPicture(const std::string& name, uint32_t width, uint32_t height) {
  const auto image = DecodeImage(GoldenFile("images/" + name));
  EXPECT_TRUE(image.ok()) << image.status();
  return *EncodeImage(ResizeNearest(*image, width, height), ImageFormat::kPng, 90, "");
}

ImageRequest MakeGoldenRequest(const nlohmann::json& golden) {
  const nlohmann::json& arguments = golden.at("arguments");
  const auto text = [&arguments](const char* name) -> std::optional<std::string> {
    return arguments.contains(name) && !arguments[name].is_null()
               ? std::optional<std::string>(arguments[name].get<std::string>())
               : std::nullopt;
  };
  ImageRequest request;
  request.prompt = arguments.at("prompt");
  request.negative_prompt = text("negative_prompt");
  request.prompt_2 = text("prompt_2");
  request.negative_prompt_2 = text("negative_prompt_2");
  request.width = arguments.at("width").get<uint32_t>();
  request.height = arguments.at("height").get<uint32_t>();
  request.steps = arguments.at("num_inference_steps").get<uint32_t>();
  request.guidance_scale = arguments.at("guidance_scale").get<double>();
  request.guidance_rescale = arguments.value("guidance_rescale", 0.0);
  request.clip_skip = arguments.value("clip_skip", 0u);
  request.seed = golden.at("seed").get<uint64_t>();
  const auto [sampler, schedule] = SchedulersByName().at(golden.at("scheduler"));
  request.sampler = sampler;
  request.schedule = schedule;
  if (arguments.contains("eta")) {
    request.eta = arguments["eta"].get<double>();
  }
  const std::string kind = golden.at("kind");
  if (kind != "text_to_image") {
    request.init_image = GoldenPicture("init_image.png", *request.width, *request.height);
    if (!arguments.at("strength").is_null()) {
      request.strength = arguments.at("strength").get<double>();
    }
  }
  if (kind == "inpaint") {
    request.mask_image = GoldenPicture("mask.png", *request.width, *request.height);
  }
  for (const nlohmann::json& entry : golden.value("control", nlohmann::json::array())) {
    const std::string net = entry.at("net"), file = entry.at("image");  // "nets/NAME", "NAME.png", perhaps in a folder
    ControlRef& control = request.controls.emplace_back();
    control.name = net.substr(net.rfind('/') + 1);
    control.image = GoldenFile("control/" + file.substr(file.rfind('/') + 1));
    control.scale = entry.at("scale").get<double>();
    control.start = entry.at("start").get<double>();
    control.end = entry.at("end").get<double>();
    if (entry.contains("control_type")) {
      control.type = entry.at("control_type").get<uint32_t>();
    }
  }
  if (arguments.contains("original_size")) {
    request.size_conditioning = MakeSize(arguments, "");
    request.negative_size_conditioning = MakeSize(arguments, "negative_");
  }
  return request;
}

std::vector<nlohmann::json> GoldenRuns(const std::string& folder) {
  std::ifstream stream(GoldenPath(folder + "/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  std::vector<nlohmann::json> runs;
  for (const nlohmann::json& golden : manifest.at("cases")) {
    if (golden.contains("arguments")) {
      runs.push_back(golden);
    }
  }
  return runs;
}

std::vector<std::pair<std::string, double>> GoldenAdapters(const nlohmann::json& golden) {
  std::vector<std::pair<std::string, double>> adapters;
  for (const nlohmann::json& adapter : golden.at("adapters")) {
    adapters.emplace_back(AdapterName(adapter.at("file")), adapter.at("scale"));
  }
  return adapters;
}

std::string AdapterName(const std::string& file) { return std::filesystem::path(file).stem(); }

at::Tensor Pixels(const RgbImage& image) {
  return at::from_blob(const_cast<uint8_t*>(image.pixels.data()), {image.height, image.width, 3}, at::kByte);
}

}  // namespace hotlora
