#include "src/adapters/adapter_store.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

#include "src/adapters/adapter_catalog.h"
#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_reader.h"
#include "src/adapters/adapter_writer.h"
#include "src/adapters/file_upload.h"
#include "src/adapters/key_map.h"
#include "src/adapters/key_suffix.h"
#include "src/adapters/lease_book.h"
#include "src/adapters/resident_tier.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

// A block is at most so many times the size of its file: a rank of 1 padded to 8, widened from 16 bits to 32.
constexpr uint64_t kMostGrowth = 16;

class TieredAdapterStore : public AdapterStore {
 public:
  TieredAdapterStore(const AdapterStoreOptions& options, AdapterDirectory directory, KeyMap keys, ModuleTable modules,
                     Metrics* metrics, std::unique_ptr<AdapterMemory> memory)
      : directory_(std::move(directory)),
        metrics_(metrics),
        memory_(std::move(memory)),
        reader_(directory_, std::move(keys), std::move(modules), options.allow_unmatched_keys, *memory_),
        writer_(directory_),
        upload_space_(reader_.max_file_bytes()),
        book_(std::make_shared<LeaseBook>(metrics)),
        host_(AdapterTier::kHost, memory_->host_bytes(), metrics),
        device_(AdapterTier::kDevice, memory_->device_bytes(), metrics) {
    writer_.RemoveStale();
    directory_.LogWhatIsNotServed();
  }

  absl::StatusOr<std::unique_ptr<AdapterLease>> Acquire(absl::string_view name) override {
    AcquireReport report;
    ABSL_ASSIGN_OR_RETURN(Residence residence, Bring(name, AdapterTier::kDevice, /*old_will_do=*/true, report));
    {
      absl::MutexLock lock(&mutex_);
      AdapterCounts& counts = catalog_.Counts(name);
      ++counts.requests;
      counts.host_hits += report.tier_found == AdapterTier::kDisk ? 0 : 1;
      counts.last_used = absl::Now();
    }
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
      if (!lease.ok() && GetErrorDetails(lease.status()).reason == error_reason::kAdapterBudget) {
        // Its size was not known, another caller was faster, or the free space is scattered.
        leases.clear();
        ABSL_RETURN_IF_ERROR(CheckRoom(names));
        return alone ? lease.status() : InUseError(lease.status().message());
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
    ABSL_ASSIGN_OR_RETURN(const Residence residence, Bring(name, tier, /*old_will_do=*/false, report));
    absl::MutexLock lock(&mutex_);
    if (pin) {
      pins_.emplace(name);
      host_.Pin(name);
      device_.Pin(name);
    }
    return Describe(name, residence.use()->version);
  }

  absl::StatusOr<AdapterInfo> Unload(absl::string_view name) override {
    const absl::StatusOr<AdapterVersion> version = directory_.Find(name);
    absl::MutexLock lock(&mutex_);
    const std::optional<AdapterInfo> resident = DescribeResident(name);
    if (!version.ok() && !resident.has_value()) {
      return version.status();
    }
    LeaveTiers(name);
    if (version.ok()) {
      return Describe(name, *version);
    }
    AdapterInfo info = *resident;
    info.tier = AdapterTier::kDisk;
    info.pinned = false;
    info.in_use = book_->Count(name);
    return info;
  }

  bool NeedsRead(absl::string_view name) override {
    const absl::StatusOr<AdapterVersion> version = directory_.Find(name);
    return version.ok() && UseResident(name, *version, /*old_will_do=*/true).use() == nullptr;
  }

  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    UploadSteps steps;
    steps.check = [this](const std::string& name, int descriptor) -> absl::StatusOr<AdapterInfo> {
      ABSL_ASSIGN_OR_RETURN(ReadAdapter read, reader_.Check(name, descriptor));
      ABSL_RETURN_IF_ERROR(CheckSize(name, read.staged.bytes));
      return std::move(read.info);
    };
    steps.placed = [this](const AdapterInfo& checked) -> absl::StatusOr<AdapterInfo> {
      const absl::StatusOr<AdapterVersion> version = directory_.Find(checked.name);
      if (!version.ok()) {  // it is in its place, whatever the disk does now
        AdapterInfo info = checked;
        info.tier = AdapterTier::kDisk;
        return info;
      }
      absl::MutexLock lock(&mutex_);
      catalog_.NoteSound(checked, *version);
      return Describe(checked.name, *version);
    };
    return BeginFileUpload(std::move(header), writer_, &upload_space_, std::move(steps));
  }

  absl::Status Delete(absl::string_view name) override {
    ABSL_RETURN_IF_ERROR(writer_.Delete(name));
    absl::MutexLock lock(&mutex_);
    LeaveTiers(name);
    catalog_.Forget(name);
    LogInfo("adapter ", PrintableName(name), " deleted");
    return absl::OkStatus();
  }

  AdapterStoreStatistics Statistics() const override {
    AdapterStoreStatistics statistics;
    if (device_.capacity() > 0) {
      statistics.tiers.push_back(device_.Statistics());
      statistics.tiers.back().hits = device_looks_.hits;
      statistics.tiers.back().misses = device_looks_.misses;
    }
    statistics.tiers.push_back(host_.Statistics());
    statistics.tiers.back().hits = host_looks_.hits;
    statistics.tiers.back().misses = host_looks_.misses;
    // Asks for the files of those that were used, and forgets those whose file is gone.
    for (const std::string& name : NamesInCatalog()) {
      const absl::StatusOr<AdapterVersion> version = directory_.Find(name);
      absl::MutexLock lock(&mutex_);
      if (const AdapterCounts* const counts = catalog_.CountsOf(name); version.ok() && counts != nullptr) {
        statistics.adapters.push_back({Describe(name, *version), *counts});
      } else if (IsGone(version.status())) {
        catalog_.Forget(name);
      }
    }
    return statistics;
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion version, directory_.Find(name));
    absl::MutexLock lock(&mutex_);
    return Describe(name, version);
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    const std::vector<ListedAdapter> listed = directory_.List(after, limit);
    std::vector<AdapterInfo> infos;
    absl::MutexLock lock(&mutex_);
    for (const ListedAdapter& adapter : listed) {
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
  // One read of one adapter, and all callers that wait for it.
  struct Flight {
    bool unloaded = false;  // guarded by mutex_: asked to leave the tier before it came in
    // Written by the reader before `done`, read after it.
    AdapterVersion version;
    absl::StatusOr<Resident> result = absl::InternalError("not read");
    absl::Notification done;
  };

  // Whether adapters can be lent together, by their bytes. Moves nothing. OK if one is not there or not sound, which
  // Acquire will say. Sizes that are not known yet are found out, by reading, only if they matter.
  absl::Status CheckRoom(absl::Span<const std::string> names) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::Status status;
    for (const bool exact : {false, true}) {
      uint64_t on_device = 0, in_host = 0;  // what is on the device already needs no room in the host tier
      bool estimated = false;
      for (const std::string& name : names) {
        const absl::StatusOr<AdapterVersion> version = directory_.Find(name);
        std::optional<uint64_t> bytes = version.ok() ? BlockBytes(name, *version, exact) : std::nullopt;
        if (!version.ok() || (exact && !bytes.has_value())) {
          return absl::OkStatus();
        }
        estimated = estimated || !bytes.has_value();
        on_device += bytes.value_or(kMostGrowth * version->weights.size);
        in_host += device_.Use(name, &*version) != nullptr ? 0 : bytes.value_or(kMostGrowth * version->weights.size);
      }
      if (in_host == 0) {
        return absl::OkStatus();
      }
      status = device_.capacity() > 0 ? device_.CheckRoom(names, on_device) : absl::OkStatus();
      status = status.ok() ? host_.CheckRoom(names, in_host) : status;
      if (status.ok() || !estimated) {
        return status;
      }
    }
    return status;
  }

  // The bytes of the adapter's block in either tier. Nothing if they are not known; with `read` only if the file is not
  // sound.
  std::optional<uint64_t> BlockBytes(const std::string& name, const AdapterVersion& version, bool read)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    if (const Residence residence = UseResident(name, version, /*old_will_do=*/true); residence.use() != nullptr) {
      return residence.use()->room.bytes();
    }
    {
      absl::MutexLock lock(&mutex_);
      if (const uint64_t bytes = catalog_.Describe(name, version).block_bytes; bytes > 0) {
        return bytes;
      }
    }
    AdapterVersion now;
    AcquireReport report;
    const absl::StatusOr<ReadAdapter> measured =
        read ? reader_.Read(name, now, report) : absl::StatusOr<ReadAdapter>(absl::NotFoundError("not read"));
    if (!measured.ok()) {
      return std::nullopt;
    }
    absl::MutexLock lock(&mutex_);
    catalog_.NoteSound(measured->info, now);
    return measured->staged.bytes;
  }

  // ADAPTER_BUDGET where no tier could ever hold so much.
  absl::Status CheckSize(absl::string_view name, uint64_t bytes) const {
    const uint64_t most = device_.capacity() > 0 ? std::min(device_.capacity(), host_.capacity()) : host_.capacity();
    return bytes <= most
               ? absl::OkStatus()
               : NamedError(name,
                            MakeError(absl::StatusCode::kResourceExhausted, error_reason::kAdapterBudget,
                                      absl::StrCat("adapter needs ", bytes, " bytes; the smallest tier has ", most)));
  }

  // The adapter in the version that its file has now, in that tier. With `old_will_do` an earlier version where the
  // file is broken.
  absl::StatusOr<Residence> Bring(absl::string_view name, AdapterTier tier, bool old_will_do, AcquireReport& report) {
    Stopwatch stopwatch;
    const bool to_device = tier == AdapterTier::kDevice && device_.capacity() > 0;
    const absl::StatusOr<AdapterVersion> version = directory_.Find(name);
    if (!version.ok()) {
      Forget(name, version.status());
    }
    Residence residence;
    if (version.ok()) {
      residence = UseResident(name, *version, old_will_do);
    }
    CountRequest(to_device, residence, version.ok());
    if (!version.ok()) {
      return version.status();
    }
    report.tier_found = residence.device != nullptr ? AdapterTier::kDevice
                        : residence.host != nullptr ? AdapterTier::kHost
                                                    : AdapterTier::kDisk;
    report.lookup_seconds += stopwatch.Lap();
    if (residence.use() == nullptr) {
      ABSL_ASSIGN_OR_RETURN(residence.host, BringToHost(name, *version, old_will_do, report));
    }
    if (to_device && residence.device == nullptr) {
      ABSL_ASSIGN_OR_RETURN(residence.device, Raise(residence.host, report));
    }
    return residence;
  }

  // From the resident tiers: this version, or the one that serves because this version is known to be broken.
  Residence UseResident(absl::string_view name, const AdapterVersion& version, bool old_will_do)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    Residence residence{host_.Use(name, &version), device_.Use(name, &version)};
    if (residence.use() != nullptr || !old_will_do) {
      return residence;
    }
    absl::MutexLock lock(&mutex_);
    const AdapterCatalog::Failure* const failure = catalog_.FailureOf(name, version);
    if (failure != nullptr && absl::IsFailedPrecondition(failure->status)) {
      residence.host = host_.Use(name, nullptr);
      residence.device = device_.Use(name, residence.host == nullptr ? nullptr : &residence.host->version);
    }
    return residence;
  }

  // Reads the adapter, unless a read is already under way.
  absl::StatusOr<Resident> BringToHost(absl::string_view name, AdapterVersion version, bool old_will_do,
                                       AcquireReport& report) {
    for (int attempt = 1;; ++attempt) {
      bool leads = false;
      const std::shared_ptr<Flight> flight = JoinFlight(name, version, leads);
      if (flight == nullptr) {  // it came in between
        if (Resident host = host_.Use(name, &version); host != nullptr) {
          return host;
        }
        continue;
      }
      if (leads) {
        Fly(std::string(name), *flight, report);
      } else {
        flight->done.WaitForNotification();
      }
      // A read that began before the file was replaced is not what this caller asked for.
      if (!leads && flight->version != version && attempt < kMaxReadAttempts) {
        ABSL_ASSIGN_OR_RETURN(version, directory_.Find(name));
        continue;
      }
      if (!flight->result.ok() && old_will_do && absl::IsFailedPrecondition(flight->result.status())) {
        if (Resident old = host_.Use(name, nullptr); old != nullptr) {
          return old;
        }
      }
      return flight->result;
    }
  }

  // Copies a hosted adapter to the device, unless it is there. One at a time: they share the way there.
  absl::StatusOr<Resident> Raise(const Resident& hosted, AcquireReport& report) ABSL_LOCKS_EXCLUDED(mutex_) {
    const std::string& name = hosted->info.name;
    Stopwatch stopwatch;
    absl::MutexLock upload_lock(&upload_mutex_);
    if (Resident there = device_.Use(name, &hosted->version); there != nullptr) {
      return there;
    }
    absl::StatusOr<TierReservation> room = device_.Reserve(name, hosted->room.bytes());
    if (!room.ok()) {
      return NamedError(name, room.status());
    }
    ABSL_ASSIGN_OR_RETURN(std::shared_ptr<const AdapterWeights> weights,
                          memory_->Upload(hosted->weights, room->range().offset, room->bytes()));
    AdapterInfo info = hosted->info;
    info.tier = AdapterTier::kDevice;
    auto raised =
        std::make_shared<const ResidentAdapter>(std::move(info), hosted->version, *std::move(room), std::move(weights));
    report.upload_seconds += stopwatch.Lap();
    if (metrics_ != nullptr) {
      metrics_->CountRaisedBytes(raised->room.bytes());
    }
    absl::MutexLock lock(&mutex_);
    // Unless it was unloaded or replaced meanwhile.
    const std::optional<AdapterInfo> host = host_.Describe(name);
    if (host.has_value() && host_.Use(name, &hosted->version) != nullptr) {
      device_.Insert(raised);
      if (host->pinned) {
        device_.Pin(name);
      }
    }
    return raised;
  }

  // The flight under way, or a new one that the caller leads; nullptr if one has just landed.
  std::shared_ptr<Flight> JoinFlight(absl::string_view name, const AdapterVersion& version, bool& leads)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const auto under_way = flights_.find(name);
    if (under_way != flights_.end()) {
      return under_way->second;
    }
    if (host_.Use(name, &version) != nullptr) {
      return nullptr;
    }
    leads = true;
    return flights_.emplace(std::string(name), std::make_shared<Flight>()).first->second;
  }

  // Reads the adapter and wakes all callers that wait for it, whether the read succeeds or not.
  void Fly(const std::string& name, Flight& flight, AcquireReport& report) ABSL_LOCKS_EXCLUDED(mutex_) {
    try {
      flight.result = Read(name, flight.version, report);
    } catch (const std::bad_alloc&) {
      flight.result = MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory,
                                absl::StrCat("no memory to read adapter ", PrintableName(name)));
    } catch (const std::exception& error) {
      LogError("reading adapter ", PrintableName(name), ": ", error.what());
      flight.result = MakeError(absl::StatusCode::kInternal, error_reason::kInternal,
                                absl::StrCat("adapter ", PrintableName(name), " cannot be read"));
    }
    {
      absl::MutexLock lock(&mutex_);
      if (flight.result.ok()) {
        const Resident& hosted = *flight.result;
        if (!flight.unloaded) {
          host_.Insert(hosted);
          if (pins_.contains(name)) {  // its file was gone for a while
            host_.Pin(name);
          }
        }
        AdapterCounts& counts = catalog_.Counts(name);
        ++counts.reads;
        counts.read_seconds += report.read_seconds;
        counts.parse_seconds += report.parse_seconds;
        LogInfo("adapter ", PrintableName(name), " read: ", hosted->info.format, ", rank ", hosted->info.rank_max, ", ",
                hosted->info.matched_modules, " modules, ", hosted->room.bytes(), " bytes");
      } else if (!absl::IsNotFound(flight.result.status())) {
        catalog_.NoteFailure(name, flight.version, flight.result.status());
        LogWarning(flight.result.status().message());
      }
      flights_.erase(name);
    }
    if (metrics_ != nullptr) {
      const bool ok = flight.result.ok();
      metrics_->CountAdapterLoad(ok ? "" : GetErrorDetails(flight.result.status()).reason,
                                 ok ? (*flight.result)->info.bytes : 0);
    }
    flight.done.Notify();
  }

  absl::StatusOr<Resident> Read(const std::string& name, AdapterVersion& version, AcquireReport& report) {
    ABSL_ASSIGN_OR_RETURN(ReadAdapter read, reader_.Read(name, version, report));
    Stopwatch stopwatch;
    {
      absl::MutexLock lock(&mutex_);
      catalog_.NoteSound(read.info, version);
    }
    ABSL_RETURN_IF_ERROR(CheckSize(name, read.staged.bytes));
    absl::StatusOr<TierReservation> room = host_.Reserve(name, read.staged.bytes);
    if (!room.ok()) {
      return NamedError(name, room.status());
    }
    ABSL_ASSIGN_OR_RETURN(std::shared_ptr<const AdapterWeights> weights, read.staged.place(room->range().offset));
    report.parse_seconds += stopwatch.Lap();
    return std::make_shared<const ResidentAdapter>(std::move(read.info), version, *std::move(room), std::move(weights));
  }

  // A look into each tier on the way down.
  void CountRequest(bool to_device, const Residence& found, bool on_disk) {
    if (to_device) {
      ++(found.device != nullptr ? device_looks_.hits : device_looks_.misses);
    }
    if (!to_device || found.device == nullptr) {
      ++(found.host != nullptr ? host_looks_.hits : host_looks_.misses);
    }
    if (metrics_ == nullptr) {
      return;
    }
    if (to_device) {
      metrics_->CountCacheRequest(AdapterTier::kDevice, found.device != nullptr);
    }
    if (!to_device || found.device == nullptr) {
      metrics_->CountCacheRequest(AdapterTier::kHost, found.host != nullptr);
    }
    if (found.use() == nullptr) {
      metrics_->CountCacheRequest(AdapterTier::kDisk, on_disk);
    }
  }

  static bool IsGone(const absl::Status& status) {
    return absl::IsNotFound(status) && GetErrorDetails(status).reason != error_reason::kAdapterFolderMissing;
  }

  std::vector<std::string> NamesInCatalog() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return catalog_.Names();
  }

  // The file is gone: so is what was kept of it, but for what requests hold and the wish to have it pinned. If the
  // whole folder is gone, it may be about to be replaced, so everything stays.
  void Forget(absl::string_view name, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (IsGone(status)) {
      absl::MutexLock lock(&mutex_);
      catalog_.Forget(name);
      RemoveResident(name);
    }
  }

  // Also for a read under way: it serves those who wait for it, and no later callers.
  void LeaveTiers(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const auto flight = flights_.find(name); flight != flights_.end()) {
      flight->second->unloaded = true;
    }
    pins_.erase(name);
    RemoveResident(name);
  }

  void RemoveResident(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    host_.Remove(name, EvictionReason::kExplicit);
    device_.Remove(name, EvictionReason::kExplicit);
  }

  // In the tier closest to the device; of the host's version where they differ, because that is the newer one.
  std::optional<AdapterInfo> DescribeResident(absl::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::optional<AdapterInfo> host = host_.Describe(name), device = device_.Describe(name);
    return device.has_value() && (!host.has_value() || host->content_sha256 == device->content_sha256) ? device : host;
  }

  AdapterInfo Describe(absl::string_view name, const AdapterVersion& version) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    AdapterInfo info;
    if (std::optional<AdapterInfo> resident = DescribeResident(name); resident.has_value()) {
      info = *std::move(resident);
    } else {
      info = catalog_.Describe(name, version);
    }
    info.in_use = book_->Count(name);
    if (flights_.contains(name)) {
      info.state = AdapterState::kLoading;
    } else if (const auto* const failure = catalog_.FailureOf(name, version); failure != nullptr) {
      info.state = AdapterState::kFailed;
      info.error = std::string(failure->status.message());
    }
    return info;
  }

  // Constant after construction.
  const AdapterDirectory directory_;
  Metrics* const metrics_;
  const std::unique_ptr<AdapterMemory> memory_;
  const AdapterReader reader_;
  const AdapterWriter writer_;
  UploadSpace upload_space_;

  // Their own synchronisation; taken after mutex_ where both are needed.
  const std::shared_ptr<LeaseBook> book_;
  ResidentTier host_, device_;

  absl::Mutex upload_mutex_;  // taken before mutex_

  mutable absl::Mutex mutex_;  // never held while a file is read
  absl::flat_hash_map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<std::string> pins_ ABSL_GUARDED_BY(mutex_);  // wanted, whether they are resident or not
  mutable AdapterCatalog catalog_ ABSL_GUARDED_BY(mutex_);

  struct Looks {
    std::atomic<uint64_t> hits{0}, misses{0};
  };
  Looks host_looks_, device_looks_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AdapterStore>> AdapterStore::Create(AdapterStoreOptions options, ModuleTable modules,
                                                                   Metrics* metrics,
                                                                   std::unique_ptr<AdapterMemory> memory) {
  ABSL_ASSIGN_OR_RETURN(AdapterDirectory directory, AdapterDirectory::Open(options.directory, options.follow_links));
  ABSL_ASSIGN_OR_RETURN(KeyMap keys, KeyMap::Build(modules));
  return std::make_unique<TieredAdapterStore>(options, std::move(directory), std::move(keys), std::move(modules),
                                              metrics, std::move(memory));
}

}  // namespace hotlora
