#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_TIERS_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_TIERS_H_

// Brings adapters, or files of another kind, into the tiers of memory, from the disk to the host and from there to the
// device, and takes them out again. No LibTorch here.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/adapters/adapter_catalog.h"
#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_lease.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/adapter_statistics.h"
#include "src/adapters/resident_tier.h"
#include "src/adapters/store_reader.h"
#include "src/adapters/stored_folders.h"
#include "src/base/mutex.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

// Both tiers, what is known of each adapter beyond them (AdapterCatalog), and the names that are pinned. Names are
// those of StoredFolders.
//
// Errors   of AdapterStore's functions of the same name
// Threads  thread-safe. Bring and FindBlock may read files; the other functions do not wait for them
class AdapterTiers {
 public:
  struct Block {
    std::optional<uint64_t> bytes;  // in either tier
    bool on_device = false;         // in this version; it needs no room in the host tier then
  };

  // The arguments outlive it, and `metrics` also what Bring returns.
  AdapterTiers(const StoredFolders& folders, StoreMemory& memory, StoreMetrics* metrics);

  // The adapter in the version that its file has now, in `tier` (kHost or kDevice). With `old_will_do` an earlier
  // version that is resident, if the file is broken. Reads of one name at the same time are one read.
  absl::StatusOr<Residence> Bring(absl::string_view name, AdapterTier tier, bool old_will_do, AcquireReport& report);

  // Whether Bring with `old_will_do` would find it without reading its file. `version` is the file's.
  bool IsResident(absl::string_view name, const AdapterVersion& version);

  // What is known of the adapter's block. If its size is not known, `may_read` reads the file to find it out; it is
  // unknown then only if the file is not sound.
  Block FindBlock(const std::string& name, const AdapterVersion& version, bool may_read);

  // Whether these adapters can be in both tiers at the same time, of so many bytes together in each. Moves nothing.
  absl::Status CheckRoom(absl::Span<const std::string> names, uint64_t device_bytes, uint64_t host_bytes) const;

  // ResourceExhausted (ADAPTER_BUDGET) if so many bytes do not fit into an empty tier.
  absl::Status CheckSize(absl::string_view name, uint64_t bytes) const;

  // Keeps it from being evicted until it is unloaded or deleted, also after its file was gone for a while.
  void Pin(absl::string_view name);

  // Takes the adapter out of the tiers and removes its pin. A read under way serves callers that wait for it, and no
  // later ones.
  absl::StatusOr<AdapterInfo> Unload(absl::string_view name);

  // Unloads the adapter and forgets everything about it.
  void Forget(absl::string_view name);

  // A request got the adapter, which was found in that tier.
  void CountRequest(absl::string_view name, AdapterTier found);

  // A file was checked outside Bring and is sound.
  void NoteSound(const AdapterInfo& info, const AdapterVersion& version);

  // AdapterInfo::in_use is 0 in these: leases are not counted here.
  AdapterInfo Describe(absl::string_view name, const AdapterVersion& version) const;
  AdapterStoreStatistics Statistics() const;

 private:
  struct Flight;
  struct LaidOut {
    TierReservation room;
    HeldWeights weights;
  };

  void CountLookups(bool to_device, const Residence& found, bool on_disk);
  Residence UseResident(absl::string_view name, const AdapterVersion& version, bool old_will_do)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Resident> BringToHost(absl::string_view name, AdapterVersion version, bool old_will_do,
                                       AcquireReport& report) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Resident> BringToDevice(const Resident& hosted, AcquireReport& report) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Flight> JoinFlight(absl::string_view name, const AdapterVersion& version, bool& leads)
      ABSL_LOCKS_EXCLUDED(mu_);
  void LeadFlight(const std::string& name, Flight& flight, AcquireReport& report) ABSL_LOCKS_EXCLUDED(mu_);
  absl::StatusOr<Resident> Read(const std::string& name, AdapterVersion& version, AcquireReport& report)
      ABSL_LOCKS_EXCLUDED(mu_);
  // In the host tier.
  absl::StatusOr<LaidOut> LayOut(const std::string& name, const StagedAdapter& staged) ABSL_LOCKS_EXCLUDED(mu_);
  void NoteResult(const std::string& name, const Flight& flight, const AcquireReport& report)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetIfGone(absl::string_view name, const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  void LeaveTiers(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveResident(absl::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::optional<AdapterInfo> DescribeResident(absl::string_view name) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  AdapterInfo DescribeLocked(absl::string_view name, const AdapterVersion& version) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const StoredFolders& folders_;
  StoreMemory& memory_;
  StoreMetrics* const metrics_;

  // Their own synchronisation; taken after mu_ if both are needed.
  ResidentTier host_, device_;

  Mutex upload_mu_;  // taken before mu_

  mutable Mutex mu_;  // never held while a file is read
  absl::flat_hash_map<std::string, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<std::string> pins_ ABSL_GUARDED_BY(mu_);  // wanted, whether they are resident or not
  mutable AdapterCatalog catalog_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_TIERS_H_
