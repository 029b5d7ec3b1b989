#include "src/controls/control_store.h"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/store_reader.h"
#include "src/adapters/store_storage.h"
#include "src/adapters/stored_folders.h"
#include "src/adapters/tiered_store.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/sdxl/placed_control_net.h"
#include "src/sdxl/placed_image_prompt.h"
#include "src/tensor/torch_guard.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{16} << 20;
constexpr uint64_t kAlignment = 64;

uint64_t ElementSize(ComputePlace place) { return c10::elementSize(place.dtype); }

class ControlMemory final : public StoreMemory {
 public:
  ControlMemory(c10::Device device, uint64_t host_bytes, uint64_t device_bytes)
      : storage_(device, host_bytes, device_bytes) {}

  uint64_t host_bytes() const override { return storage_.host_bytes(); }
  uint64_t device_bytes() const override { return storage_.device_bytes(); }

  template <typename Placed, typename Network>
  absl::StatusOr<HeldWeights> LayOut(const StagedNetwork<Network>& staged, uint64_t offset, uint64_t bytes) const {
    HeldWeights laid_out;
    ABSL_RETURN_IF_ERROR(GuardTorch("loading a network", [&] {
      laid_out = PlaceNetwork<Placed>(staged, storage_.HostBlock(offset, bytes));
      return absl::OkStatus();
    }));
    return laid_out;
  }

  absl::StatusOr<HeldWeights> Upload(const HeldWeights& hosted, uint64_t offset, uint64_t bytes) override {
    HeldWeights uploaded;
    ABSL_RETURN_IF_ERROR(storage_.RunUpload("upload of a network", [&] {
      storage_.UseDevice(offset, bytes);
      const at::Tensor block = storage_.device().narrow(0, static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
      uploaded = std::visit([&block](const auto& weights) -> HeldWeights { return Copy(weights, block); }, hosted);
      return absl::OkStatus();
    }));
    return uploaded;
  }

 private:
  template <typename Placed>
  static HeldWeights Copy(const std::shared_ptr<const Placed>& placed, const at::Tensor& block) {
    return CopyNetwork(*placed, block);
  }
  static HeldWeights Copy(const std::shared_ptr<const AdapterWeights>&, const at::Tensor&) {
    TORCH_CHECK(false, "adapters have a memory of their own");
  }

  const StoreStorage storage_;
};

// The hash of the file; with configurations as AdapterInfo says.
std::string HashOf(const SafetensorsFile& file, const std::string& configs) {
  std::string tensors = file.sha256();
  if (configs.empty()) {
    return tensors;
  }
  Sha256 hash;
  hash.Update(tensors.data(), tensors.size());
  hash.Update(configs.data(), configs.size());
  return hash.HexDigest();
}

// What a network says of itself.
void Describe(const ControlNetConfig& config, AdapterInfo& info) {
  info.format = config.types.has_value() ? "union" : "controlnet";
  info.control_types = config.types.has_value() ? static_cast<uint32_t>(config.types->count) : 0;
}

void Describe(const ImagePromptConfig& config, AdapterInfo& info) {
  const bool plus = config.kind == ImagePromptConfig::Kind::kPlus;
  info.format = plus ? "ip_adapter_plus" : "ip_adapter";
  (plus ? info.encoder.hidden_size : info.encoder.projection_dim) = config.encoder_width;
}

void Describe(const ImageEncoderConfig& config, AdapterInfo& info) {
  info.format = "clip_vision";
  info.encoder = {config.width, config.projection, config.square()};
}

// Reads one kind of networks.
template <typename Placed, typename Network>
class NetworkReader final : public StoreReader {
 public:
  struct Configs {
    std::optional<std::string> config, more_config;
    std::string config_name;
  };
  // Checks a file in memory, which outlives the result.
  using Stage = std::function<absl::StatusOr<StagedNetwork<Network>>(const SafetensorsFile&, const Configs&)>;

  // `directory` and `memory` outlive it. `mismatch`: the reason of an error if the file is of another kind, or does not
  // fit the model.
  NetworkReader(const AdapterDirectory& directory, const ControlMemory& memory, ComputePlace place,
                const char* mismatch, Stage stage)
      : StoreReader(directory, kMaxHeaderBytes),
        memory_(memory),
        place_(place),
        mismatch_(mismatch),
        stage_(std::move(stage)) {}

  // A file in F64 is larger than its block.
  uint64_t max_file_bytes() const override {
    return memory_.host_bytes() / ElementSize(place_) * sizeof(double) + kMaxHeaderBytes;
  }

 private:
  absl::StatusOr<ReadAdapter> Parse(Contents contents) const override {
    const auto file = std::make_shared<const SafetensorsFile>(std::move(contents.file));
    const Configs configs{std::move(contents.config), std::move(contents.more_config), std::move(contents.config_name)};
    auto staged = std::make_shared<StagedNetwork<Network>>();
    const absl::Status checked = GuardTorch("loading a network", [&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(*staged, stage_(*file, configs));
      return absl::OkStatus();
    });
    if (!checked.ok()) {
      return Refusal(checked);
    }
    ReadAdapter read;
    Describe(staged->config, read.info);
    read.info.bytes = file->file_bytes();
    read.file = file;
    read.content_sha256 = [file, text = configs.config.value_or("") + configs.more_config.value_or("")] {
      return HashOf(*file, text);
    };
    read.staged.bytes = static_cast<uint64_t>(staged->parameters->layout().bytes);
    read.staged.lay_out = [this, staged, bytes = read.staged.bytes](uint64_t offset) {
      return memory_.template LayOut<Placed>(*staged, offset, bytes);
    };
    return read;
  }

  // What the checks of a file say, with the reason of its kind.
  absl::Status Refusal(const absl::Status& status) const {
    if (!absl::IsFailedPrecondition(status)) {
      return status;
    }
    const bool unfit = GetErrorDetails(status).reason == error_reason::kModelUnsupported;
    return MakeError(status.code(), unfit ? mismatch_ : kind().invalid, status.message());
  }

  const ControlMemory& memory_;
  const ComputePlace place_;
  const char* const mismatch_;
  const Stage stage_;
};

// Bytes of the block of the largest network that the folder holds, by the headers of its files; what cannot be read
// counts nothing.
uint64_t LargestBlock(const AdapterDirectory& directory, ComputePlace place) {
  uint64_t largest = 0;
  for (const ListedAdapter& listed : directory.List("", SIZE_MAX)) {
    const absl::StatusOr<OpenedAdapter> opened = directory.OpenAdapter(listed.name);
    if (!opened.ok()) {
      continue;
    }
    std::vector<int> files;
    for (const OpenedShard& shard : opened->shards) {
      files.push_back(shard.file.number());
    }
    uint64_t bytes = 0;
    for (const int file : files.empty() ? std::vector<int>{opened->weights.number()} : files) {
      const absl::StatusOr<SafetensorsFile> header = SafetensorsFile::ReadHeader(file, kMaxHeaderBytes);
      for (const StoredTensor& tensor : header.ok() ? header->tensors() : std::vector<StoredTensor>()) {
        bytes += tensor.bytes() / SizeOf(tensor.dtype) * ElementSize(place) + kAlignment;
      }
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

// Links that leave the folder are followed if it is one file, which no caller names: a model cache has such links.
absl::StatusOr<std::unique_ptr<const AdapterDirectory>> OpenDirectory(const std::string& path, const StoredKind& kind) {
  ABSL_ASSIGN_OR_RETURN(AdapterDirectory opened, AdapterDirectory::Open(path, /*follow_links=*/kind.is_folder,
                                                                        /*use_openat2=*/true, kind));
  return std::make_unique<const AdapterDirectory>(std::move(opened));
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> MakeControlStore(const ControlStoreOptions& options,
                                                               const SdxlConfig& model, ComputePlace place,
                                                               StoreMetrics* metrics) {
  ABSL_ASSIGN_OR_RETURN(auto controls, OpenDirectory(options.controls, kControlKind));
  ABSL_ASSIGN_OR_RETURN(auto prompts, OpenDirectory(options.image_prompts, kImagePromptKind));
  ABSL_ASSIGN_OR_RETURN(auto encoder, OpenDirectory(options.image_encoder, kImageEncoderKind));
  std::unique_ptr<ControlMemory> memory;
  ABSL_RETURN_IF_ERROR(GuardTorch("memory for ControlNets and image prompts", [&] {
    uint64_t by_default = LargestBlock(*encoder, place);
    if (!options.controls.empty()) {
      const auto usual = static_cast<uint64_t>(UsualControlNetBytes(model, place.dtype));
      by_default += std::max(usual, LargestBlock(*controls, place));
    }
    if (!options.image_prompts.empty()) {
      const auto usual = static_cast<uint64_t>(UsualImagePromptBytes(model, place.dtype));
      by_default += std::max(usual, LargestBlock(*prompts, place));
    }
    memory = std::make_unique<ControlMemory>(place.device, options.host_bytes.value_or(by_default),
                                             options.device_bytes.value_or(by_default));
    Synchronize(place.device);  // as for adapters: work that was queued on this memory is done
    return absl::OkStatus();
  }));
  using ControlNets = NetworkReader<PlacedControlNet, ControlNet>;
  using ImagePrompts = NetworkReader<PlacedImagePrompt, ImagePrompt>;
  using ImageEncoders = NetworkReader<PlacedImageEncoder, ImageEncoder>;
  auto read_controls = std::make_unique<const ControlNets>(
      *controls, *memory, place, error_reason::kControlMismatch,
      [&model, place](const SafetensorsFile& file, const ControlNets::Configs& configs) {
        return StageControlNet(file, configs.config, model, place.dtype, configs.config_name);
      });
  auto read_prompts =
      std::make_unique<const ImagePrompts>(*prompts, *memory, place, error_reason::kImagePromptMismatch,
                                           [&model, place](const SafetensorsFile& file, const ImagePrompts::Configs&) {
                                             return StageImagePrompt(file, model, place.dtype);
                                           });
  auto read_encoder = std::make_unique<const ImageEncoders>(
      *encoder, *memory, place, error_reason::kImageEncoderMismatch,
      [place](const SafetensorsFile& file, const ImageEncoders::Configs& configs) {
        return StageImageEncoder(file, configs.config.value_or(""), configs.more_config, place.dtype);
      });
  std::vector<StoredFolder> folders;
  folders.emplace_back(std::move(controls), std::move(read_controls));
  folders.emplace_back(std::move(prompts), std::move(read_prompts));
  folders.emplace_back(std::move(encoder), std::move(read_encoder));
  return MakeTieredStore(std::move(folders), std::move(memory), metrics);
}

}  // namespace hotlora
