#include "src/controls/control_store.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/store_reader.h"
#include "src/adapters/store_storage.h"
#include "src/adapters/tiered_store.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/sdxl/placed_control_net.h"
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

  absl::StatusOr<HeldWeights> LayOut(const StagedControlNet& staged, uint64_t offset, uint64_t bytes) const {
    HeldWeights laid_out;
    ABSL_RETURN_IF_ERROR(GuardTorch("ControlNet load", [&] {
      laid_out = PlaceControlNet(staged, storage_.HostBlock(offset, bytes));
      return absl::OkStatus();
    }));
    return laid_out;
  }

  absl::StatusOr<HeldWeights> Upload(const HeldWeights& hosted, uint64_t offset, uint64_t bytes) override {
    HeldWeights uploaded;
    ABSL_RETURN_IF_ERROR(storage_.RunUpload("ControlNet upload", [&] {
      storage_.UseDevice(offset, bytes);
      const at::Tensor block = storage_.device().narrow(0, static_cast<int64_t>(offset), static_cast<int64_t>(bytes));
      uploaded = CopyControlNet(*std::get<std::shared_ptr<const PlacedControlNet>>(hosted), block);
      return absl::OkStatus();
    }));
    return uploaded;
  }

 private:
  const StoreStorage storage_;
};

// The hash of the file; with a configuration as AdapterInfo says.
std::string HashOf(const SafetensorsFile& file, const std::optional<std::string>& config) {
  if (!config.has_value()) {
    return file.sha256();
  }
  const std::string tensors = file.sha256();
  Sha256 hash;
  hash.Update(tensors.data(), tensors.size());
  hash.Update(config->data(), config->size());
  return hash.HexDigest();
}

// What the checks of a file say, with the reason of this store.
absl::Status Refusal(const absl::Status& status) {
  if (!absl::IsFailedPrecondition(status)) {
    return status;
  }
  const bool unfit = GetErrorDetails(status).reason == error_reason::kModelUnsupported;
  return MakeError(status.code(), unfit ? error_reason::kControlMismatch : error_reason::kControlInvalid,
                   status.message());
}

class ControlReader final : public StoreReader {
 public:
  // All arguments but `place` outlive it.
  ControlReader(const AdapterDirectory& directory, const SdxlConfig& model, ComputePlace place,
                const ControlMemory& memory)
      : StoreReader(directory, kMaxHeaderBytes), model_(model), place_(place), memory_(memory) {}

  // A file in F64 is larger than its block.
  uint64_t max_file_bytes() const override {
    return memory_.host_bytes() / ElementSize(place_) * sizeof(double) + kMaxHeaderBytes;
  }

 private:
  absl::StatusOr<ReadAdapter> Parse(Contents contents) const override {
    const auto file = std::make_shared<const SafetensorsFile>(std::move(contents.file));
    auto staged = std::make_shared<StagedControlNet>();
    const absl::Status checked = GuardTorch("ControlNet load", [&]() -> absl::Status {
      ABSL_ASSIGN_OR_RETURN(*staged,
                            StageControlNet(*file, contents.config, model_, place_.dtype, contents.config_name));
      return absl::OkStatus();
    });
    if (!checked.ok()) {
      return Refusal(checked);
    }
    ReadAdapter read;
    read.info.format = staged->config.types.has_value() ? "union" : "controlnet";
    read.info.control_types = staged->config.types.has_value() ? static_cast<uint32_t>(staged->config.types->count) : 0;
    read.info.bytes = file->file_bytes();
    read.file = file;
    read.content_sha256 = [file, config = std::move(contents.config)] { return HashOf(*file, config); };
    read.staged.bytes = static_cast<uint64_t>(staged->parameters->layout().bytes);
    read.staged.lay_out = [this, staged, bytes = read.staged.bytes](uint64_t offset) {
      return memory_.LayOut(*staged, offset, bytes);
    };
    return read;
  }

  const SdxlConfig& model_;
  const ComputePlace place_;
  const ControlMemory& memory_;
};

// Bytes of the block of the largest net that the folder holds, by the headers of its files; what cannot be read counts
// nothing.
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

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> MakeControlStore(const ControlStoreOptions& options,
                                                               const SdxlConfig& model, ComputePlace place,
                                                               StoreMetrics* metrics) {
  ABSL_ASSIGN_OR_RETURN(AdapterDirectory opened, AdapterDirectory::Open(options.directory, /*follow_links=*/false,
                                                                        /*use_openat2=*/true, kControlKind));
  auto directory = std::make_unique<const AdapterDirectory>(std::move(opened));
  std::unique_ptr<ControlMemory> memory;
  ABSL_RETURN_IF_ERROR(GuardTorch("memory for ControlNets", [&] {
    uint64_t by_default = 0;
    if (!options.directory.empty()) {
      const auto usual = static_cast<uint64_t>(UsualControlNetBytes(model, place.dtype));
      by_default = std::max(usual, LargestBlock(*directory, place));
    }
    memory = std::make_unique<ControlMemory>(place.device, options.host_bytes.value_or(by_default),
                                             options.device_bytes.value_or(by_default));
    Synchronize(place.device);  // as for adapters: work that was queued on this memory is done
    return absl::OkStatus();
  }));
  auto reader = std::make_unique<const ControlReader>(*directory, model, place, *memory);
  return MakeTieredStore(std::move(directory), std::move(memory), std::move(reader), metrics);
}

}  // namespace hotlora
