#include "src/adapters/adapter_store.h"

#include <optional>
#include <utility>

#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_reader.h"
#include "src/adapters/adapter_tiers.h"
#include "src/adapters/adapter_writer.h"
#include "src/adapters/file_upload.h"
#include "src/adapters/lease_book.h"
#include "src/adapters/resident_tier.h"
#include "src/adapters/tiered_store.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

class TieredAdapterStore : public AdapterStore {
 public:
  TieredAdapterStore(std::unique_ptr<const AdapterDirectory> directory, std::unique_ptr<StoreMemory> memory,
                     std::unique_ptr<const StoreReader> reader, StoreMetrics* metrics)
      : directory_(std::move(directory)),
        memory_(std::move(memory)),
        reader_(std::move(reader)),
        writer_(*directory_),
        upload_space_(reader_->max_file_bytes()),
        book_(std::make_shared<LeaseBook>(metrics)),
        tiers_(*directory_, *reader_, *memory_, metrics) {
    writer_.RemoveStale();
    directory_->LogWhatIsNotServed();
  }

  absl::StatusOr<std::unique_ptr<AdapterLease>> Acquire(absl::string_view name) override {
    AcquireReport report;
    ABSL_ASSIGN_OR_RETURN(Residence residence, tiers_.Bring(name, AdapterTier::kDevice, /*old_will_do=*/true, report));
    tiers_.CountRequest(name, report.tier_found);
    return book_->Lend(std::move(residence), report);
  }

  absl::StatusOr<std::vector<std::unique_ptr<AdapterLease>>> AcquireAll(
      absl::Span<const std::string> names, absl::FunctionRef<absl::Status()> wanted) override {
    const bool alone = book_->empty();
    ABSL_RETURN_IF_ERROR(CheckRoom(names));
    std::vector<std::unique_ptr<AdapterLease>> leases;
    for (const std::string& name : names) {
      ABSL_RETURN_IF_ERROR(wanted());
      absl::StatusOr<std::unique_ptr<AdapterLease>> lease = Acquire(name);
      if (!lease.ok() && GetErrorDetails(lease.status()).reason == directory_->kind().budget) {
        // Its size was not known, another caller was faster, or the free space is scattered.
        leases.clear();
        ABSL_RETURN_IF_ERROR(CheckRoom(names));
        return alone ? lease.status() : InUseError(directory_->kind(), lease.status().message());
      }
      if (!lease.ok()) {
        return lease.status();
      }
      leases.push_back(*std::move(lease));
    }
    return leases;
  }

  absl::StatusOr<AdapterInfo> Load(absl::string_view name, AdapterTier tier, bool pin) override {
    AcquireReport report;
    ABSL_ASSIGN_OR_RETURN(const Residence residence, tiers_.Bring(name, tier, /*old_will_do=*/false, report));
    if (pin) {
      tiers_.Pin(name);
    }
    return Describe(name, residence.use()->version);
  }

  absl::StatusOr<AdapterInfo> Unload(absl::string_view name) override {
    ABSL_ASSIGN_OR_RETURN(AdapterInfo info, tiers_.Unload(name));
    info.in_use = book_->Count(name);
    return info;
  }

  bool NeedsRead(absl::string_view name) override {
    const absl::StatusOr<AdapterVersion> version = directory_->Find(name);
    return version.ok() && !tiers_.IsResident(name, *version);
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    UploadSteps steps;
    steps.check = [this](const std::string& name, int descriptor) -> absl::StatusOr<AdapterInfo> {
      ABSL_ASSIGN_OR_RETURN(const ReadAdapter read, reader_->Check(name, descriptor));
      ABSL_RETURN_IF_ERROR(tiers_.CheckSize(name, read.staged.bytes));
      return read.HashedInfo();
    };
    steps.committed = [this](const AdapterInfo& checked) -> absl::StatusOr<AdapterInfo> {
      const absl::StatusOr<AdapterVersion> version = directory_->Find(checked.name);
      if (!version.ok()) {  // it has its name, whatever the disk does now
        AdapterInfo info = checked;
        info.tier = AdapterTier::kDisk;
        return info;
      }
      tiers_.NoteSound(checked, *version);
      return Describe(checked.name, *version);
    };
    return BeginFileUpload(std::move(header), writer_, &upload_space_, std::move(steps));
  }

  absl::Status Delete(absl::string_view name) override {
    ABSL_RETURN_IF_ERROR(writer_.Delete(name));
    tiers_.Forget(name);
    LogInfo(directory_->kind().noun, " ", PrintableName(name), " deleted");
    return absl::OkStatus();
  }

  AdapterStoreStatistics Statistics() const override {
    AdapterStoreStatistics statistics = tiers_.Statistics();
    for (AdapterStatistics& adapter : statistics.adapters) {
      adapter.info.in_use = book_->Count(adapter.info.name);
    }
    return statistics;
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion version, directory_->Find(name));
    return Describe(name, version);
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    std::vector<AdapterInfo> infos;
    for (const ListedAdapter& adapter : directory_->List(after, limit)) {
      if (adapter.version.ok()) {
        infos.push_back(Describe(adapter.name, *adapter.version));
      } else {
        infos.emplace_back();
        infos.back().name = adapter.name;
        infos.back().state = AdapterState::kFailed;
        infos.back().error = std::string(adapter.version.status().message());
      }
    }
    return infos;
  }

 private:
  // Whether adapters can be lent together, by their bytes. Moves nothing. OK if one is missing or not sound, which
  // Acquire will say. At first sizes that are not known are estimated; only if these do not fit, the files are read.
  absl::Status CheckRoom(absl::Span<const std::string> names) {
    absl::Status status;
    for (const bool exact : {false, true}) {
      uint64_t device_bytes = 0, host_bytes = 0;
      bool estimated = false;
      for (const std::string& name : names) {
        const absl::StatusOr<AdapterVersion> version = directory_->Find(name);
        if (!version.ok()) {
          return absl::OkStatus();
        }
        const AdapterTiers::Block block = tiers_.FindBlock(name, *version, /*may_read=*/exact);
        if (exact && !block.bytes.has_value()) {
          return absl::OkStatus();
        }
        estimated = estimated || !block.bytes.has_value();
        const uint64_t bytes = block.bytes.value_or(directory_->kind().most_growth * version->bytes());
        device_bytes += bytes;
        host_bytes += block.on_device ? 0 : bytes;
      }
      if (host_bytes == 0) {
        return absl::OkStatus();
      }
      status = tiers_.CheckRoom(names, device_bytes, host_bytes);
      if (status.ok() || !estimated) {
        return status;
      }
    }
    return status;
  }

  AdapterInfo Describe(absl::string_view name, const AdapterVersion& version) const {
    AdapterInfo info = tiers_.Describe(name, version);
    info.in_use = book_->Count(name);
    return info;
  }

  // Constant after construction.
  const std::unique_ptr<const AdapterDirectory> directory_;
  const std::unique_ptr<StoreMemory> memory_;
  const std::unique_ptr<const StoreReader> reader_;
  const AdapterWriter writer_;

  // Their own synchronisation.
  UploadSpace upload_space_;
  const std::shared_ptr<LeaseBook> book_;
  AdapterTiers tiers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> AdapterStore::Create(AdapterStoreOptions options, ModuleTable modules,
                                                                   StoreMetrics* metrics,
                                                                   std::unique_ptr<AdapterMemory> memory) {
  ABSL_ASSIGN_OR_RETURN(AdapterDirectory opened, AdapterDirectory::Open(options.directory, options.follow_links));
  auto directory = std::make_unique<const AdapterDirectory>(std::move(opened));
  ABSL_ASSIGN_OR_RETURN(KeyMap keys, KeyMap::Build(modules));
  auto reader = std::make_unique<const AdapterReader>(*directory, std::move(keys), std::move(modules),
                                                      options.allow_unmatched_keys, *memory);
  return MakeTieredStore(std::move(directory), std::move(memory), std::move(reader), metrics);
}

std::unique_ptr<AdapterStore> MakeTieredStore(std::unique_ptr<const AdapterDirectory> directory,
                                              std::unique_ptr<StoreMemory> memory,
                                              std::unique_ptr<const StoreReader> reader, StoreMetrics* metrics) {
  return std::make_unique<TieredAdapterStore>(std::move(directory), std::move(memory), std::move(reader), metrics);
}

}  // namespace hotlora
