#include "src/adapters/adapter_tiers.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

// If the whole folder is gone, it may be about to be replaced: its files do not count as gone.
bool IsGone(const StoredKind& kind, const absl::Status& status) {
  return absl::IsNotFound(status) && GetErrorDetails(status).reason != kind.folder_missing;
}

}  // namespace

// One read of one adapter, and all callers that wait for it.
struct AdapterTiers::Flight {
  bool unloaded = false;  // guarded by mu_: asked to leave the tier before it came in
  // Written by the reader before `done`, read after it.
  AdapterVersion version;
  absl::StatusOr<Resident> result = absl::InternalError("not read");
  absl::Notification done;
};

AdapterTiers::AdapterTiers(const StoredFolders& folders, StoreMemory& memory, StoreMetrics* metrics)
    : folders_(folders),
      memory_(memory),
      metrics_(metrics),
      host_(folders.kind(), AdapterTier::kHost, memory.host_bytes(), metrics),
      device_(folders.kind(), AdapterTier::kDevice, memory.device_bytes(), metrics) {}

AdapterTiers::Block AdapterTiers::FindBlock(const std::string& name, const AdapterVersion& version, bool may_read) {
  Block block;
  block.on_device = device_.Use(name, &version) != nullptr;
  if (const Residence residence = UseResident(name, version, /*old_will_do=*/true); residence.use() != nullptr) {
    block.bytes = residence.use()->room.bytes();
    return block;
  }
  {
    MutexLock lock(&mu_);
    if (const uint64_t bytes = catalog_.Describe(name, version).block_bytes; bytes > 0) {
      block.bytes = bytes;
      return block;
    }
  }
  if (may_read) {
    AdapterVersion now;
    AcquireReport report;
    if (const absl::StatusOr<ReadAdapter> measured = folders_.Read(name, now, report); measured.ok()) {
      NoteSound(measured->HashedInfo(), now);
      block.bytes = measured->staged.bytes;
    }
  }
  return block;
}

absl::Status AdapterTiers::CheckRoom(absl::Span<const std::string> names, uint64_t device_bytes,
                                     uint64_t host_bytes) const {
  if (device_.capacity() > 0) {
    ABSL_RETURN_IF_ERROR(device_.CheckRoom(names, device_bytes));
  }
  return host_.CheckRoom(names, host_bytes);
}

absl::Status AdapterTiers::CheckSize(absl::string_view name, uint64_t bytes) const {
  const uint64_t most = device_.capacity() > 0 ? std::min(device_.capacity(), host_.capacity()) : host_.capacity();
  if (bytes <= most) {
    return absl::OkStatus();
  }
  return folders_.Named(name, MakeError(absl::StatusCode::kResourceExhausted, folders_.kind().budget,
                                        absl::StrCat("needs ", bytes, " bytes; the smallest tier has ", most)));
}

absl::StatusOr<Residence> AdapterTiers::Bring(absl::string_view name, AdapterTier tier, bool old_will_do,
                                              AcquireReport& report) {
  Stopwatch stopwatch;
  const bool to_device = tier == AdapterTier::kDevice && device_.capacity() > 0;
  const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
  Residence residence;
  if (version.ok()) {
    residence = UseResident(name, *version, old_will_do);
  } else {
    ForgetIfGone(name, version.status());
  }
  CountLookups(to_device, residence, version.ok());
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
    ABSL_ASSIGN_OR_RETURN(residence.device, BringToDevice(residence.host, report));
  }
  return residence;
}

bool AdapterTiers::IsResident(absl::string_view name, const AdapterVersion& version) {
  return UseResident(name, version, /*old_will_do=*/true).use() != nullptr;
}

// A lookup in each tier, from the device down to the one that has the adapter.
void AdapterTiers::CountLookups(bool to_device, const Residence& found, bool on_disk) {
  if (to_device) {
    device_.CountLookup(found.device != nullptr);
  }
  if (!to_device || found.device == nullptr) {
    host_.CountLookup(found.host != nullptr);
  }
  if (found.use() == nullptr) {
    metrics_->CountCacheRequest(AdapterTier::kDisk, on_disk);
  }
}

// From the resident tiers: this version, or the one that serves because this version is known to be broken.
Residence AdapterTiers::UseResident(absl::string_view name, const AdapterVersion& version, bool old_will_do) {
  Residence residence{host_.Use(name, &version), device_.Use(name, &version)};
  if (residence.use() != nullptr || !old_will_do) {
    return residence;
  }
  MutexLock lock(&mu_);
  const AdapterCatalog::Failure* const failure = catalog_.FailureOf(name, version);
  if (failure != nullptr && absl::IsFailedPrecondition(failure->status)) {
    residence.host = host_.Use(name, nullptr);
    residence.device = device_.Use(name, residence.host == nullptr ? nullptr : &residence.host->version);
  }
  return residence;
}

// Reads of one name are single flight: flights_ has at most one of a name. A caller leads a flight or waits for the one
// under way, and takes its result, except in three cases:
//
//   - A flight ended after this caller had looked into the tier, and before JoinFlight. The tier is asked again. If the
//     adapter was evicted in between, the caller begins again; each round needs another caller's read, so it ends.
//   - The flight that this caller waited for began before the file was replaced, so its version is not the wanted one.
//     The caller asks the folder again and takes part in a later flight. A file may be replaced faster than it can be
//     read, so after kMaxReadAttempts the result is taken as it is. A flight that the caller leads always has the right
//     version, because StoreReader::Read returns what the name means after the reading.
//   - The file is broken, and an earlier version is still resident: it serves if `old_will_do`.
absl::StatusOr<Resident> AdapterTiers::BringToHost(absl::string_view name, AdapterVersion version, bool old_will_do,
                                                   AcquireReport& report) {
  for (int attempt = 1;; ++attempt) {
    bool leads = false;
    const std::shared_ptr<Flight> flight = JoinFlight(name, version, leads);
    if (flight == nullptr) {
      if (Resident host = host_.Use(name, &version); host != nullptr) {
        return host;
      }
      continue;
    }
    if (leads) {
      LeadFlight(std::string(name), *flight, report);
    } else {
      flight->done.WaitForNotification();
    }
    if (!leads && flight->version != version && attempt < kMaxReadAttempts) {
      ABSL_ASSIGN_OR_RETURN(version, folders_.Find(name));
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

// Copies a hosted adapter to the device, unless it is there. One copy at a time: they share the way there.
absl::StatusOr<Resident> AdapterTiers::BringToDevice(const Resident& hosted, AcquireReport& report) {
  const std::string& name = hosted->info.name;
  Stopwatch stopwatch;
  MutexLock upload_lock(&upload_mu_);
  if (Resident there = device_.Use(name, &hosted->version); there != nullptr) {
    return there;
  }
  absl::StatusOr<TierReservation> room = device_.Reserve(name, hosted->room.bytes());
  if (!room.ok()) {
    return folders_.Named(name, room.status());
  }
  ABSL_ASSIGN_OR_RETURN(HeldWeights weights, memory_.Upload(hosted->weights, room->range().offset, room->bytes()));
  AdapterInfo info = hosted->info;
  info.tier = AdapterTier::kDevice;
  auto uploaded =
      std::make_shared<const ResidentAdapter>(std::move(info), hosted->version, *std::move(room), std::move(weights));
  report.upload_seconds += stopwatch.Lap();
  metrics_->CountRaisedBytes(uploaded->room.bytes());
  MutexLock lock(&mu_);
  // Unless it was unloaded or replaced meanwhile.
  const std::optional<AdapterInfo> host = host_.Describe(name);
  if (host.has_value() && host_.Use(name, &hosted->version) != nullptr) {
    device_.Insert(uploaded);
    if (host->pinned) {
      device_.Pin(name);
    }
  }
  return uploaded;
}

// The flight under way, or a new one that the caller leads; nullptr if one has just ended.
std::shared_ptr<AdapterTiers::Flight> AdapterTiers::JoinFlight(absl::string_view name, const AdapterVersion& version,
                                                               bool& leads) {
  MutexLock lock(&mu_);
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
void AdapterTiers::LeadFlight(const std::string& name, Flight& flight, AcquireReport& report) {
  try {
    flight.result = Read(name, flight.version, report);
  } catch (const std::bad_alloc&) {
    flight.result = MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory,
                              absl::StrCat("no memory to read ", folders_.Label(name)));
  } catch (const std::exception& error) {
    LogError("reading ", folders_.Label(name), ": ", error.what());
    flight.result = MakeError(absl::StatusCode::kInternal, error_reason::kInternal,
                              absl::StrCat(folders_.Label(name), " cannot be read"));
  }
  {
    MutexLock lock(&mu_);
    NoteResult(name, flight, report);
    flights_.erase(name);
  }
  const bool ok = flight.result.ok();
  metrics_->CountLoad(ok ? "" : GetErrorDetails(flight.result.status()).reason, ok ? (*flight.result)->info.bytes : 0);
  flight.done.Notify();
}

absl::StatusOr<Resident> AdapterTiers::Read(const std::string& name, AdapterVersion& version, AcquireReport& report) {
  ABSL_ASSIGN_OR_RETURN(const ReadAdapter read, folders_.Read(name, version, report));
  const Stopwatch stopwatch;
  absl::StatusOr<LaidOut> laid_out = LayOut(name, read.staged);  // while the file is being hashed
  AdapterInfo info = read.HashedInfo();
  NoteSound(info, version);
  report.parse_seconds += stopwatch.Seconds();
  if (!laid_out.ok()) {
    return laid_out.status();
  }
  return std::make_shared<const ResidentAdapter>(std::move(info), version, std::move(laid_out->room),
                                                 std::move(laid_out->weights));
}

absl::StatusOr<AdapterTiers::LaidOut> AdapterTiers::LayOut(const std::string& name, const StagedAdapter& staged) {
  ABSL_RETURN_IF_ERROR(CheckSize(name, staged.bytes));
  absl::StatusOr<TierReservation> room = host_.Reserve(name, staged.bytes);
  if (!room.ok()) {
    return folders_.Named(name, room.status());
  }
  ABSL_ASSIGN_OR_RETURN(HeldWeights weights, staged.lay_out(room->range().offset));
  return LaidOut{*std::move(room), std::move(weights)};
}

void AdapterTiers::NoteResult(const std::string& name, const Flight& flight, const AcquireReport& report) {
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
    const AdapterInfo& info = hosted->info;
    LogInfo(folders_.Label(name), " read: ", info.format, ", ",
            info.rank_max == 0 ? "" : absl::StrCat("rank ", info.rank_max, ", ", info.matched_modules, " modules, "),
            hosted->room.bytes(), " bytes");
  } else if (!absl::IsNotFound(flight.result.status())) {
    catalog_.NoteFailure(name, flight.version, flight.result.status());
    LogWarning(flight.result.status().message());
  }
}

void AdapterTiers::Pin(absl::string_view name) {
  MutexLock lock(&mu_);
  pins_.emplace(name);
  host_.Pin(name);
  device_.Pin(name);
}

absl::StatusOr<AdapterInfo> AdapterTiers::Unload(absl::string_view name) {
  const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
  MutexLock lock(&mu_);
  const std::optional<AdapterInfo> resident = DescribeResident(name);
  if (!version.ok() && !resident.has_value()) {
    return version.status();
  }
  LeaveTiers(name);
  if (version.ok()) {
    return DescribeLocked(name, *version);
  }
  AdapterInfo info = *resident;
  info.tier = AdapterTier::kDisk;
  info.pinned = false;
  return info;
}

void AdapterTiers::Forget(absl::string_view name) {
  MutexLock lock(&mu_);
  LeaveTiers(name);
  catalog_.Forget(name);
}

// If the file is gone, so is everything that was kept of it, except what requests hold and the wish to have it pinned.
void AdapterTiers::ForgetIfGone(absl::string_view name, const absl::Status& status) {
  if (IsGone(folders_.kind(name), status)) {
    MutexLock lock(&mu_);
    catalog_.Forget(name);
    RemoveResident(name);
  }
}

void AdapterTiers::LeaveTiers(absl::string_view name) {
  if (const auto flight = flights_.find(name); flight != flights_.end()) {
    flight->second->unloaded = true;
  }
  pins_.erase(name);
  RemoveResident(name);
}

void AdapterTiers::RemoveResident(absl::string_view name) {
  host_.Remove(name, EvictionReason::kExplicit);
  device_.Remove(name, EvictionReason::kExplicit);
}

void AdapterTiers::CountRequest(absl::string_view name, AdapterTier found) {
  MutexLock lock(&mu_);
  AdapterCounts& counts = catalog_.Counts(name);
  ++counts.requests;
  counts.host_hits += found == AdapterTier::kDisk ? 0 : 1;
  counts.last_used = absl::Now();
}

void AdapterTiers::NoteSound(const AdapterInfo& info, const AdapterVersion& version) {
  MutexLock lock(&mu_);
  catalog_.NoteSound(info, version);
}

AdapterStoreStatistics AdapterTiers::Statistics() const {
  AdapterStoreStatistics statistics;
  if (device_.capacity() > 0) {
    statistics.tiers.push_back(device_.Statistics());
  }
  statistics.tiers.push_back(host_.Statistics());
  std::vector<std::string> names;
  {
    MutexLock lock(&mu_);
    names = catalog_.Names();
  }
  // Asks for the files of those that were used, and forgets those whose file is gone.
  for (const std::string& name : names) {
    const absl::StatusOr<AdapterVersion> version = folders_.Find(name);
    MutexLock lock(&mu_);
    if (const AdapterCounts* const counts = catalog_.CountsOf(name); version.ok() && counts != nullptr) {
      statistics.adapters.push_back({DescribeLocked(name, *version), *counts});
    } else if (IsGone(folders_.kind(name), version.status())) {
      catalog_.Forget(name);
    }
  }
  return statistics;
}

AdapterInfo AdapterTiers::Describe(absl::string_view name, const AdapterVersion& version) const {
  MutexLock lock(&mu_);
  return DescribeLocked(name, version);
}

// In the tier closest to the device; of the host's version if they differ, because that is the newer one.
std::optional<AdapterInfo> AdapterTiers::DescribeResident(absl::string_view name) const {
  std::optional<AdapterInfo> host = host_.Describe(name), device = device_.Describe(name);
  return device.has_value() && (!host.has_value() || host->content_sha256 == device->content_sha256) ? device : host;
}

AdapterInfo AdapterTiers::DescribeLocked(absl::string_view name, const AdapterVersion& version) const {
  AdapterInfo info;
  if (std::optional<AdapterInfo> resident = DescribeResident(name); resident.has_value()) {
    info = *std::move(resident);
  } else {
    info = catalog_.Describe(name, version);
  }
  if (flights_.contains(name)) {
    info.state = AdapterState::kLoading;
  } else if (const auto* const failure = catalog_.FailureOf(name, version); failure != nullptr) {
    info.state = AdapterState::kFailed;
    info.error = std::string(failure->status.message());
  }
  return info;
}

}  // namespace hotlora
