#include "src/adapters/adapter_store.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/adapter_format/key_map.h"
#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_reader.h"
#include "src/adapters/adapter_tiers.h"
#include "src/adapters/file_upload.h"
#include "src/adapters/lease_book.h"
#include "src/adapters/resident_tier.h"
#include "src/adapters/stored_folders.h"
#include "src/adapters/tiered_store.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

class TieredAdapterStore : public AdapterStore {
 public:
  TieredAdapterStore(std::vector<StoredFolder> folders, std::unique_ptr<StoreMemory> memory, StoreMetrics* metrics)
      : memory_(std::move(memory)),
        folders_(std::move(folders)),
        upload_space_(folders_.all().front().reader->max_file_bytes()),
        book_(std::make_shared<LeaseBook>(metrics)),
        tiers_(folders_, *memory_, metrics) {
    for (const StoredFolder& folder : folders_.all()) {
      if (folder.writer != nullptr) {
        folder.writer->RemoveStale();
      }
      folder.directory->LogWhatIsNotServed();
    }
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
      if (!lease.ok() && GetErrorDetails(lease.status()).reason == folders_.kind().budget) {
        // Its size was not known, another caller was faster, or the free space is scattered.
        leases.clear();
        ABSL_RETURN_IF_ERROR(CheckRoom(names));
        return alone ? lease.status() : InUseError(folders_.kind(), lease.status().message());
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
    return Told(std::move(info));
  }

  bool NeedsRead(absl::string_view name) override {
    const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
    return version.ok() && !tiers_.IsResident(name, *version);
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    const StoredFolders::Place place = folders_.Of(header.name);
    ABSL_ASSIGN_OR_RETURN(const AdapterWriter* const writer, place.writer());
    const std::string prefix(place.kind().prefix);
    UploadSteps steps;
    steps.check = [this, prefix, &reader = *place.folder.reader](const std::string& name,
                                                                 int descriptor) -> absl::StatusOr<AdapterInfo> {
      ABSL_ASSIGN_OR_RETURN(const ReadAdapter read, reader.Check(name, descriptor));
      ABSL_RETURN_IF_ERROR(tiers_.CheckSize(prefix + name, read.staged.bytes));
      return read.HashedInfo();
    };
    steps.committed = [this, prefix](const AdapterInfo& checked) -> absl::StatusOr<AdapterInfo> {
      const std::string name = prefix + checked.name;
      const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
      AdapterInfo info = checked;
      if (!version.ok()) {  // it has its name, whatever the disk does now
        info.tier = AdapterTier::kDisk;
        return info;
      }
      info.name = name;
      tiers_.NoteSound(info, *version);
      return Describe(name, *version);
    };
    header.name = std::string(place.name);
    return BeginFileUpload(std::move(header), *writer, &upload_space_, std::move(steps));
  }

  absl::Status Delete(absl::string_view name) override {
    const StoredFolders::Place place = folders_.Of(name);
    ABSL_ASSIGN_OR_RETURN(const AdapterWriter* const writer, place.writer());
    ABSL_RETURN_IF_ERROR(writer->Delete(place.name));
    tiers_.Forget(name);
    LogInfo(folders_.Label(name), " deleted");
    return absl::OkStatus();
  }

  AdapterStoreStatistics Statistics() const override {
    AdapterStoreStatistics statistics = tiers_.Statistics();
    for (AdapterStatistics& adapter : statistics.adapters) {
      adapter.info = Told(std::move(adapter.info));
    }
    return statistics;
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion version, folders_.Find(name));
    return Describe(name, version);
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    std::vector<AdapterInfo> infos;
    const StoredFolders::Place place = folders_.Of(after);
    for (const ListedAdapter& adapter : place.folder.directory->List(place.name, limit)) {
      if (adapter.version.ok()) {
        infos.push_back(Describe(absl::StrCat(place.kind().prefix, adapter.name), *adapter.version));
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
        const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
        if (!version.ok()) {
          return absl::OkStatus();
        }
        const AdapterTiers::Block block = tiers_.FindBlock(name, *version, /*may_read=*/exact);
        if (exact && !block.bytes.has_value()) {
          return absl::OkStatus();
        }
        estimated = estimated || !block.bytes.has_value();
        const uint64_t bytes = block.bytes.value_or(folders_.kind(name).most_growth * version->bytes());
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
    return Told(tiers_.Describe(name, version));
  }

  // What the tiers know, with its leases, under the name that its folder has for it.
  AdapterInfo Told(AdapterInfo info) const {
    info.in_use = book_->Count(info.name);
    info.name = std::string(folders_.Of(info.name).name);
    return info;
  }

  // Constant after construction. The readers may hold references to the memory.
  const std::unique_ptr<StoreMemory> memory_;
  const StoredFolders folders_;

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
  std::vector<StoredFolder> folders;
  folders.emplace_back(std::move(directory), std::move(reader));
  return MakeTieredStore(std::move(folders), std::move(memory), metrics);
}

std::unique_ptr<AdapterStore> MakeTieredStore(std::vector<StoredFolder> folders, std::unique_ptr<StoreMemory> memory,
                                              StoreMetrics* metrics) {
  return std::make_unique<TieredAdapterStore>(std::move(folders), std::move(memory), metrics);
}

}  // namespace hotlora
