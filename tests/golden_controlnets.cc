#include "tests/golden_controlnets.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/tensor/seeded_noise.h"
#include "tests/adapter_format/safetensors_writer.h"

namespace hotlora {
namespace {

constexpr uint64_t kSeed = 42501;

// The matrices have these gains, as the reference drew them. They are smaller where sums grow, so that rounding stays
// small.
double GainOf(const std::string& name) {
  const auto has = [&name](const char* part) { return absl::StrContains(name, part); };
  if (has("to_q.") || has("to_k.")) {
    return 1.3;
  }
  if (has("to_out.0.") || has("proj_out.") || has("conv2.") || has("ff.net.2.")) {
    return 0.6;
  }
  return 1.0;
}

at::Tensor DrawParameter(const std::string& name, const std::vector<int64_t>& shape, SeededNoise& noise) {
  const at::Tensor drawn = noise.Draw(shape);
  if (shape.size() == 1) {
    return (drawn * 0.1 + (absl::EndsWith(name, "weight") ? 1.0 : 0.0)).to(at::kHalf);
  }
  return (drawn * GainOf(name) / std::sqrt(static_cast<double>(drawn[0].numel()))).to(at::kHalf);
}

// What makes a random net show in pictures: louder outputs, and a hint network that tells pictures apart.
void Strengthen(TensorMap& tensors, double hint_gain) {
  const std::pair<const char*, double> gains[] = {{"controlnet_down_blocks", 1.3},
                                                  {"controlnet_mid_block", 1.3},
                                                  {"task_embedding", 3.0},
                                                  {"spatial_ch_projs", 2.0},
                                                  {"control_add_embedding", 2.0}};
  const auto multiply = [](at::Tensor& tensor, double gain) { tensor = (tensor.to(at::kFloat) * gain).to(at::kHalf); };
  for (auto& [name, tensor] : tensors) {
    for (const auto& [start, gain] : gains) {
      if (absl::StartsWith(name, start)) {
        multiply(tensor, gain);
      }
    }
    if (absl::StartsWith(name, "controlnet_cond_embedding.")) {
      multiply(tensor, absl::EndsWith(name, "weight") ? 1.8 : 0.3);
    }
  }
  multiply(tensors.at("controlnet_cond_embedding.conv_out.weight"), hint_gain);
}

TensorMap DrawNet(const std::string& net, double hint_gain, SeededNoise& noise) {
  TensorMap tensors;
  std::ifstream list(GoldenPath(absl::StrCat("control/nets/", net, "/tensors.txt")));
  for (std::string line; std::getline(list, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    std::vector<int64_t> shape;
    for (int64_t size = 0; words >> size;) {
      shape.push_back(size);
    }
    tensors[name] = DrawParameter(name, shape, noise);
  }
  Strengthen(tensors, hint_gain);
  return tensors;
}

const std::map<std::string, TensorMap>& AllNets() {
  static const auto* const kNets = [] {
    SeededNoise noise(kSeed);  // one for all, in this order
    auto* const nets = new std::map<std::string, TensorMap>;
    for (const auto& [net, hint_gain] : {std::pair("lines", 0.57), {"depth", 1.1}, {"union", 1.8}}) {
      (*nets)[net] = DrawNet(net, hint_gain, noise);
    }
    return nets;
  }();
  return *kNets;
}

// The text of a file; nothing if there is none.
std::optional<std::string> ReadText(const std::string& path) {
  std::ifstream stream(path);
  if (!stream.good()) {
    return std::nullopt;
  }
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

// Reads a file of tensors, which `stage` checks, into memory of its own at `place`.
template <typename Placed, typename Stage>
absl::StatusOr<std::shared_ptr<const Placed>> LoadNetwork(const std::string& path, ComputePlace place,
                                                          const Stage& stage) {
  ABSL_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::ReadFile(path, uint64_t{1} << 30));
  c10::InferenceMode guard;
  ABSL_ASSIGN_OR_RETURN(const auto staged, stage(file));
  const auto placed = PlaceNetwork<Placed>(staged, at::empty({staged.parameters->layout().bytes}, at::kByte));
  return place.device.is_cpu() ? placed : CopyNetwork(*placed, at::empty_like(placed->block, place.device));
}

}  // namespace

const TensorMap& GoldenControlNet(const std::string& net) { return AllNets().at(net); }

std::string GoldenControlNetSha256(const std::string& net) {
  Sha256 hash;
  for (const auto& [name, tensor] : GoldenControlNet(net)) {
    hash.Update(tensor.const_data_ptr(), tensor.nbytes());
  }
  return hash.HexDigest();
}

void WriteTensors(const TensorMap& tensors, const std::string& path) {
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor values = tensor.contiguous();
    const auto* const bytes = static_cast<const char*>(values.const_data_ptr());
    writer.Add(name, values.scalar_type() == at::kHalf ? "F16" : "F32", values.sizes().vec(),
               std::vector<char>(bytes, bytes + values.nbytes()));
  }
  writer.Save(path);
}

std::string WriteControlNetFolder(const std::string& net, const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(GoldenPath(absl::StrCat("control/nets/", net, "/config.json")), folder + "/config.json");
  WriteTensors(GoldenControlNet(net), folder + "/diffusion_pytorch_model.safetensors");
  return folder;
}

absl::StatusOr<std::shared_ptr<const PlacedControlNet>> LoadControlNet(const std::string& path, const SdxlConfig& model,
                                                                       ComputePlace place) {
  const bool is_folder = std::filesystem::is_directory(path);
  const std::string stem = path.substr(0, path.rfind(".safetensors"));
  return LoadNetwork<PlacedControlNet>(
      is_folder ? path + "/diffusion_pytorch_model.safetensors" : path, place, [&](const SafetensorsFile& file) {
        return StageControlNet(file, ReadText(is_folder ? path + "/config.json" : stem + ".json"), model, place.dtype);
      });
}

absl::StatusOr<std::shared_ptr<const PlacedImagePrompt>> LoadImagePrompt(const std::string& path,
                                                                         const SdxlConfig& model, ComputePlace place) {
  return LoadNetwork<PlacedImagePrompt>(
      path, place, [&](const SafetensorsFile& file) { return StageImagePrompt(file, model, place.dtype); });
}

absl::StatusOr<std::shared_ptr<const PlacedImageEncoder>> LoadImageEncoder(const std::string& folder,
                                                                           ComputePlace place) {
  return LoadNetwork<PlacedImageEncoder>(folder + "/model.safetensors", place, [&](const SafetensorsFile& file) {
    return StageImageEncoder(file, ReadText(folder + "/config.json").value_or(""),
                             ReadText(folder + "/preprocessor_config.json"), place.dtype);
  });
}

}  // namespace hotlora
