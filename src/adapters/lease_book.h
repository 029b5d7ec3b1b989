#ifndef HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_
#define HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_

// Leases of resident adapters, and who has how many. No LibTorch here.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

#include "src/adapters/adapter_lease.h"
#include "src/adapters/resident_tier.h"
#include "src/metrics/metrics.h"

namespace hotlora {

using Resident = std::shared_ptr<const ResidentAdapter>;

// Where an adapter is by now. Used on the device, or where that has no storage of its own from the host.
struct Residence {
  Resident host, device;

  const Resident& use() const { return device != nullptr ? device : host; }
};

// Thread-safe; outlives the store with the leases.
class LeaseBook : public std::enable_shared_from_this<LeaseBook> {
 public:
  explicit LeaseBook(Metrics* metrics) : metrics_(metrics) {}

  // A lease of the adapter that is there, in this book until it dies. REQUIRES: residence.use().
  std::unique_ptr<AdapterLease> Lend(Residence residence, const AcquireReport& report);

  // How many leases of that name there are.
  uint32_t Count(absl::string_view name) const;
  // Whether there is none at all.
  bool empty() const;

 private:
  class Lease;

  uint32_t Take(const std::string& name);
  void Return(const std::string& name);

  Metrics* const metrics_;
  mutable absl::Mutex mu_;  // held alone or last
  absl::flat_hash_map<std::string, uint32_t> counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_
