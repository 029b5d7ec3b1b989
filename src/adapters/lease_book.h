#ifndef HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_
#define HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_

// Leases of resident adapters, and how many each adapter has. No LibTorch here.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_lease.h"
#include "src/adapters/resident_tier.h"
#include "src/base/mutex.h"
#include "src/metrics/store_metrics.h"

namespace hotlora {

// Thread-safe; shared by the store and all leases. `metrics` outlives it.
class LeaseBook : public std::enable_shared_from_this<LeaseBook> {
 public:
  explicit LeaseBook(StoreMetrics* metrics) : metrics_(metrics) {}

  // A lease of that adapter, counted until it is destroyed. REQUIRES: residence.use().
  std::unique_ptr<AdapterLease> Lend(Residence residence, const AcquireReport& report);

  // The number of leases of that name.
  uint32_t Count(absl::string_view name) const;
  // Whether no adapter is leased.
  bool empty() const;

 private:
  class Lease;

  uint32_t Take(const std::string& name);
  void Return(const std::string& name);

  StoreMetrics* const metrics_;
  mutable Mutex mu_;  // held alone or last
  absl::flat_hash_map<std::string, uint32_t> counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_LEASE_BOOK_H_
