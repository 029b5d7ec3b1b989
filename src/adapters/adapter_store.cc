#include "src/adapters/adapter_store.h"

#include <algorithm>
#include <atomic>
#include <chrono>
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

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_file.h"
#include "src/adapters/adapter_writer.h"
#include "src/adapters/file_upload.h"
#include "src/adapters/key_map.h"
#include "src/adapters/key_suffix.h"
#include "src/adapters/resident_tier.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {
namespace {

// How often a file may change under the reader before the request gives up.
constexpr int kMaxAttempts = 4;

using Resident = std::shared_ptr<const ResidentAdapter>;

// Where an adapter is by now. Used on the device, or where that has no storage of its own from the host.
struct Residence {
  Resident host, device;

  const Resident& use() const { return device != nullptr ? device : host; }
};

// Adds the seconds since it was made, or since the last call, to a figure.
class Stopwatch {
 public:
  void AddTo(double& seconds) {
    const Clock::time_point now = Clock::now();
    seconds += std::chrono::duration<double>(now - since_).count();
    since_ = now;
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point since_ = Clock::now();
};

// Who holds how many leases. Thread-safe; outlives the store with the leases.
class LeaseBook {
 public:
  explicit LeaseBook(Metrics* metrics) : metrics_(metrics) {}

  uint32_t Take(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    AddRefs(1);
    return ++counts_[name];
  }

  void Return(const std::string& name) {
    absl::MutexLock lock(&mutex_);
    AddRefs(-1);
    if (const auto count = counts_.find(name); --count->second == 0) {
      counts_.erase(count);
    }
  }

  uint32_t Count(absl::string_view name) const {
    absl::MutexLock lock(&mutex_);
    const auto count = counts_.find(name);
    return count == counts_.end() ? 0 : count->second;
  }

 private:
  void AddRefs(int change) {
    if (metrics_ != nullptr) {
      metrics_->AddAdapterRefs(change);
    }
  }

  Metrics* const metrics_;
  mutable absl::Mutex mutex_;  // held alone or last
  absl::flat_hash_map<std::string, uint32_t> counts_ ABSL_GUARDED_BY(mutex_);
};

class Lease : public AdapterLease {
 public:
  Lease(std::shared_ptr<LeaseBook> book, Residence residence, const AcquireReport& report)
      : book_(std::move(book)), residence_(std::move(residence)), info_(residence_.use()->info), report_(report) {
    info_.in_use = book_->Take(info_.name);
  }
  ~Lease() override {
    residence_ = {};
    book_->Return(info_.name);
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  const AdapterInfo& info() const override { return info_; }

  // Shares ownership of the resident version, not of the tensors alone: its bytes count, and its place on the device
  // is its own, as long as anybody holds them.
  std::shared_ptr<const AdapterWeights> weights() const override {
    return std::shared_ptr<const AdapterWeights>(residence_.use(), residence_.use()->weights.get());
  }

  const AcquireReport& report() const override { return report_; }

 private:
  const std::shared_ptr<LeaseBook> book_;
  Residence residence_;
  AdapterInfo info_;
  const AcquireReport report_;
};

// What the file reader says, in the words of the adapter store.
absl::Status FileError(absl::string_view name, const absl::Status& status) {
  const bool too_large = absl::IsResourceExhausted(status);
  return MakeError(too_large ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition,
                   too_large ? "ADAPTER_BUDGET" : "ADAPTER_INVALID",
                   absl::StrCat("adapter ", PrintableName(name), ": ", status.message()));
}

// The same status with the adapter's name before its message.
absl::Status Named(absl::string_view name, const absl::Status& status) {
  return MakeError(status.code(), absl::StrCat("adapter ", PrintableName(name), ": ", status.message()),
                   GetErrorDetails(status));
}

class TieredAdapterStore : public AdapterStore {
 public:
  TieredAdapterStore(AdapterStoreOptions options, AdapterDirectory directory, KeyMap keys, ModuleTable modules,
                     Metrics* metrics, std::unique_ptr<AdapterMemory> memory)
      : options_(std::move(options)),
        directory_(std::move(directory)),
        keys_(std::move(keys)),
        modules_(std::move(modules)),
        metrics_(metrics),
        memory_(std::move(memory)),
        writer_(directory_),
        book_(std::make_shared<LeaseBook>(metrics)),
        host_(TierLabel::kHost, options_.host_bytes, TierPlacement::kAnywhere, metrics),
        device_(TierLabel::kDevice, memory_->device_bytes(), TierPlacement::kContiguous, metrics) {
    writer_.RemoveStale();
  }

  absl::StatusOr<std::unique_ptr<AdapterLease>> Acquire(absl::string_view name) override {
    AcquireReport report;
    ABSL_ASSIGN_OR_RETURN(Residence residence, Bring(name, AdapterTier::kDevice, /*old_will_do=*/true, report));
    {
      absl::MutexLock lock(&mutex_);
      AdapterCounts& counts = counts_[name];
      ++counts.requests;
      counts.host_hits += report.tier_found == AdapterTier::kDisk ? 0 : 1;
      counts.last_used = absl::Now();
    }
    return std::make_unique<Lease>(book_, std::move(residence), report);
  }

  absl::StatusOr<AdapterInfo> Load(absl::string_view name, AdapterTier tier, bool pin) override {
    AcquireReport report;
    ABSL_ASSIGN_OR_RETURN(const Residence residence, Bring(name, tier, /*old_will_do=*/false, report));
    if (pin) {
      host_.Pin(name);
      device_.Pin(name);
    }
    absl::MutexLock lock(&mutex_);
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
    steps.check = [this, name = header.name](int descriptor) { return Check(name, descriptor); };
    steps.placed = [this](const AdapterInfo& checked) -> absl::StatusOr<AdapterInfo> {
      ABSL_ASSIGN_OR_RETURN(const AdapterVersion version, directory_.Find(checked.name));
      absl::MutexLock lock(&mutex_);
      failures_.erase(checked.name);
      known_[checked.name] = {checked, version};
      return Describe(checked.name, version);
    };
    return BeginFileUpload(std::move(header), writer_, options_.host_bytes + kMaxAdapterHeaderBytes, std::move(steps));
  }

  absl::Status Delete(absl::string_view name) override {
    ABSL_RETURN_IF_ERROR(writer_.Delete(name));
    absl::MutexLock lock(&mutex_);
    LeaveTiers(name);
    known_.erase(name);
    failures_.erase(name);
    counts_.erase(name);
    LogInfo("adapter ", std::string(name), " deleted");
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
    const std::vector<ListedAdapter> listed = directory_.List();
    absl::MutexLock lock(&mutex_);
    for (const ListedAdapter& adapter : listed) {
      if (const auto counts = counts_.find(adapter.name); counts != counts_.end()) {
        statistics.adapters.push_back({Describe(adapter.name, adapter.version), counts->second});
      }
    }
    ForgetVanished(listed);
    return statistics;
  }

  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion version, directory_.Find(name));
    absl::MutexLock lock(&mutex_);
    return Describe(name, version);
  }

  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    const std::vector<ListedAdapter> listed = directory_.List();
    std::vector<AdapterInfo> infos;
    absl::MutexLock lock(&mutex_);
    for (const ListedAdapter& adapter : listed) {
      if (adapter.name > after && infos.size() < limit) {
        infos.push_back(Describe(adapter.name, adapter.version));
      }
    }
    ForgetVanished(listed);
    return infos;
  }

 private:
  // One read of one adapter, and everybody who waits for it.
  struct Flight {
    bool unloaded = false;  // guarded by mutex_: asked to leave the tier before it came in
    // Written by the reader before `done`, read after it.
    AdapterVersion version;
    absl::StatusOr<Resident> result = absl::InternalError("not read");
    absl::Notification done;
  };

  struct Failure {
    AdapterVersion version;
    absl::Status status;
  };

  // The adapter in the version that its file has now, in that tier. With `old_will_do` an earlier version where the
  // file is broken.
  absl::StatusOr<Residence> Bring(absl::string_view name, AdapterTier tier, bool old_will_do, AcquireReport& report) {
    Stopwatch watch;
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
    watch.AddTo(report.lookup_seconds);
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
    const auto failure = failures_.find(name);
    const bool broken = failure != failures_.end() && failure->second.version == version &&
                        absl::IsFailedPrecondition(failure->second.status);
    if (broken) {
      residence.host = host_.Use(name, nullptr);
      residence.device = device_.Use(name, residence.host == nullptr ? nullptr : &residence.host->version);
    }
    return residence;
  }

  // Reads the adapter, unless somebody does already.
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
      if (!leads && flight->version != version && attempt < kMaxAttempts) {
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
    Stopwatch watch;
    absl::MutexLock upload_lock(&upload_mutex_);
    if (Resident there = device_.Use(name, &hosted->version); there != nullptr) {
      return there;
    }
    absl::StatusOr<TierReservation> room = device_.Reserve(name, hosted->room.bytes());
    if (!room.ok()) {
      return Named(name, room.status());
    }
    ABSL_ASSIGN_OR_RETURN(std::shared_ptr<const AdapterWeights> weights,
                          memory_->Upload(hosted->weights, room->range().offset, room->bytes()));
    AdapterInfo info = hosted->info;
    info.tier = AdapterTier::kDevice;
    auto raised =
        std::make_shared<const ResidentAdapter>(std::move(info), hosted->version, *std::move(room), std::move(weights));
    watch.AddTo(report.upload_seconds);
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

  // The flight under way, or a new one that the caller leads; nullptr where one has just landed.
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

  // Reads the adapter and tells everybody; nothing keeps it from landing.
  void Fly(const std::string& name, Flight& flight, AcquireReport& report) ABSL_LOCKS_EXCLUDED(mutex_) {
    try {
      flight.result = Read(name, flight.version, report);
    } catch (const std::bad_alloc&) {
      flight.result = MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY",
                                absl::StrCat("no memory to read adapter ", PrintableName(name)));
    } catch (const std::exception& error) {
      LogError("reading adapter ", name, ": ", error.what());
      flight.result = MakeError(absl::StatusCode::kInternal, "INTERNAL",
                                absl::StrCat("adapter ", PrintableName(name), " cannot be read"));
    }
    {
      absl::MutexLock lock(&mutex_);
      if (flight.result.ok()) {
        const Resident& hosted = *flight.result;
        if (!flight.unloaded) {
          host_.Insert(hosted);
        }
        failures_.erase(name);
        known_[name] = {hosted->info, hosted->version};
        AdapterCounts& counts = counts_[name];
        ++counts.reads;
        counts.read_seconds += report.read_seconds;
        counts.parse_seconds += report.parse_seconds;
        LogInfo("adapter ", name, " read: ", hosted->info.format, ", rank ", hosted->info.rank_max, ", ",
                hosted->info.matched_modules, " modules, ", hosted->room.bytes(), " bytes");
      } else if (!absl::IsNotFound(flight.result.status())) {
        failures_[name] = {flight.version, flight.result.status()};
        ++counts_[name].failed_reads;
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
    Stopwatch watch;
    ABSL_ASSIGN_OR_RETURN(Contents contents, ReadContents(name, version));
    watch.AddTo(report.read_seconds);

    AdapterFileOptions options;
    options.allow_unmatched_keys = options_.allow_unmatched_keys;
    options.peft_config = std::move(contents.peft_config);
    const std::string hash = ContentHash(contents.file, options.peft_config);
    absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(std::move(contents.file), keys_, modules_, options);
    if (!parsed.ok()) {
      return Named(name, parsed.status());
    }
    ABSL_ASSIGN_OR_RETURN(const StagedAdapter staged, memory_->Stage(*parsed));
    if (device_.capacity() > 0 && staged.bytes > device_.capacity()) {
      return Named(name, MakeError(absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET",
                                   absl::StrCat("adapter needs ", staged.bytes, " bytes of device memory; there are ",
                                                device_.capacity())));
    }
    // All that can be wrong with the file is known by now: from here on others make room.
    absl::StatusOr<TierReservation> room = host_.Reserve(name, staged.bytes);
    if (!room.ok()) {
      return Named(name, room.status());
    }
    ABSL_ASSIGN_OR_RETURN(std::shared_ptr<const AdapterWeights> weights, staged.place());
    watch.AddTo(report.parse_seconds);

    return std::make_shared<const ResidentAdapter>(InfoOf(name, hash, *parsed), version, *std::move(room),
                                                   std::move(weights));
  }

  // What an uploaded file would be as this adapter, and whether it ever could be one.
  absl::StatusOr<AdapterInfo> Check(const std::string& name, int descriptor) const {
    absl::StatusOr<SafetensorsFile> file = SafetensorsFile::ReadDescriptor(
        descriptor, options_.host_bytes + kMaxAdapterHeaderBytes, kMaxAdapterHeaderBytes);
    if (!file.ok()) {
      return FileError(name, file.status());
    }
    AdapterFileOptions options;
    options.allow_unmatched_keys = options_.allow_unmatched_keys;
    const absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(*std::move(file), keys_, modules_, options);
    if (!parsed.ok()) {
      return Named(name, parsed.status());
    }
    ABSL_ASSIGN_OR_RETURN(const StagedAdapter staged, memory_->Stage(*parsed));
    const uint64_t most = device_.capacity() > 0 ? std::min(device_.capacity(), host_.capacity()) : host_.capacity();
    if (staged.bytes > most) {
      return Named(name,
                   MakeError(absl::StatusCode::kResourceExhausted, "ADAPTER_BUDGET",
                             absl::StrCat("adapter needs ", staged.bytes, " bytes; the smallest tier has ", most)));
    }
    return InfoOf(name, parsed->file.sha256(), *parsed);
  }

  static AdapterInfo InfoOf(const std::string& name, const std::string& hash, const ParsedAdapter& parsed) {
    AdapterInfo info;
    info.name = name;
    info.content_sha256 = hash;
    info.format = parsed.format;
    info.rank_max = parsed.rank_max;
    info.bytes = parsed.file.file_bytes();
    info.tier = AdapterTier::kHost;
    info.targets = parsed.targets;
    info.matched_modules = parsed.matched_modules;
    info.unmatched_keys = parsed.unmatched_keys;
    info.metadata = parsed.metadata;
    return info;
  }

  struct Contents {
    SafetensorsFile file;
    std::optional<std::string> peft_config;
  };

  // The bytes of one version, untorn: what the name means after the reading is what was read.
  absl::StatusOr<Contents> ReadContents(const std::string& name, AdapterVersion& version) {
    for (int attempt = 1;; ++attempt) {
      ABSL_ASSIGN_OR_RETURN(OpenedAdapter opened, directory_.OpenAdapter(name));
      version = opened.version;
      absl::StatusOr<SafetensorsFile> file = SafetensorsFile::ReadDescriptor(
          opened.weights.number(), options_.host_bytes + kMaxAdapterHeaderBytes, kMaxAdapterHeaderBytes);
      ABSL_ASSIGN_OR_RETURN(const AdapterVersion now, directory_.Find(name));
      if (now == version) {
        if (!file.ok()) {
          return FileError(name, file.status());
        }
        return Contents{*std::move(file), std::move(opened.peft_config)};
      }
      if (attempt == kMaxAttempts) {
        return MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID",
                         absl::StrCat("adapter ", PrintableName(name), " changes while it is read"));
      }
    }
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
      metrics_->CountCacheRequest(TierLabel::kDevice, found.device != nullptr);
    }
    if (!to_device || found.device == nullptr) {
      metrics_->CountCacheRequest(TierLabel::kHost, found.host != nullptr);
    }
    if (found.use() == nullptr) {
      metrics_->CountCacheRequest(TierLabel::kDisk, on_disk);
    }
  }

  // The file is gone: so is what was kept of it, but for what requests hold.
  void Forget(absl::string_view name, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    if (absl::IsNotFound(status)) {
      absl::MutexLock lock(&mutex_);
      known_.erase(name);
      failures_.erase(name);
      counts_.erase(name);
      RemoveResident(name);
    }
  }

  // Also for a read under way: it serves those who wait for it, and nobody after them.
  void LeaveTiers(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (const auto flight = flights_.find(name); flight != flights_.end()) {
      flight->second->unloaded = true;
    }
    RemoveResident(name);
  }

  void ForgetVanished(const std::vector<ListedAdapter>& listed) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (known_.size() + failures_.size() <= listed.size() && counts_.size() <= listed.size()) {
      return;
    }
    absl::flat_hash_set<absl::string_view> names;
    for (const ListedAdapter& adapter : listed) {
      names.insert(adapter.name);
    }
    absl::erase_if(known_, [&](const auto& entry) { return !names.contains(entry.first); });
    absl::erase_if(failures_, [&](const auto& entry) { return !names.contains(entry.first); });
    absl::erase_if(counts_, [&](const auto& entry) { return !names.contains(entry.first); });
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
    } else if (const auto known = known_.find(name); known != known_.end() && known->second.version == version) {
      info = known->second.info;
      info.tier = AdapterTier::kDisk;
    } else {
      info.name = std::string(name);
      info.bytes = version.weights.size;
    }
    info.in_use = book_->Count(name);
    const auto failure = failures_.find(name);
    if (flights_.contains(name)) {
      info.state = AdapterState::kLoading;
    } else if (failure != failures_.end() && failure->second.version == version) {
      info.state = AdapterState::kFailed;
      info.error = std::string(failure->second.status.message());
    }
    return info;
  }

  struct Known {
    AdapterInfo info;
    AdapterVersion version;
  };

  // Constant after construction.
  const AdapterStoreOptions options_;
  const AdapterDirectory directory_;
  const KeyMap keys_;
  const ModuleTable modules_;
  Metrics* const metrics_;
  const std::unique_ptr<AdapterMemory> memory_;
  const AdapterWriter writer_;

  // Their own synchronisation; taken after mutex_ where both are needed.
  const std::shared_ptr<LeaseBook> book_;
  ResidentTier host_, device_;

  absl::Mutex upload_mutex_;  // taken before mutex_

  mutable absl::Mutex mutex_;  // never held while a file is read
  absl::flat_hash_map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);
  // What the last sound read and the last failed read of a file said; for messages and listings.
  mutable absl::flat_hash_map<std::string, Known> known_ ABSL_GUARDED_BY(mutex_);
  mutable absl::flat_hash_map<std::string, Failure> failures_ ABSL_GUARDED_BY(mutex_);
  mutable absl::flat_hash_map<std::string, AdapterCounts> counts_ ABSL_GUARDED_BY(mutex_);

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
  return std::make_unique<TieredAdapterStore>(std::move(options), std::move(directory), std::move(keys),
                                              std::move(modules), metrics, std::move(memory));
}

}  // namespace hotlora
