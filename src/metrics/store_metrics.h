#ifndef HOTLORA_SRC_METRICS_STORE_METRICS_H_
#define HOTLORA_SRC_METRICS_STORE_METRICS_H_

// What a store of files and its tiers count: of adapters, or of ControlNets and image prompts. metrics.h owns one for
// each. Thread-safe.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

#include "src/request/image_request.h"

namespace prometheus {
class Registry;
}  // namespace prometheus

namespace hotlora {

enum class EvictionReason { kCapacity, kExplicit, kReplaced };

struct TierFill {
  uint64_t bytes = 0, capacity_bytes = 0, pinned_bytes = 0, entries = 0;
};

class StoreMetrics {
 public:
  // `prefix`: hotlora_PREFIX_cache_bytes and so on; `plural` in the help texts; `load_reasons`: why a file was not
  // read, as in ErrorInfo; others count as "other".
  StoreMetrics(prometheus::Registry& registry, const std::string& prefix, const std::string& plural,
               std::vector<std::string> load_reasons);
  ~StoreMetrics();
  StoreMetrics(const StoreMetrics&) = delete;
  StoreMetrics& operator=(const StoreMetrics&) = delete;

  void CountCacheRequest(AdapterTier tier, bool hit);
  void CountEviction(AdapterTier tier, EvictionReason reason);
  void SetCache(AdapterTier tier, const TierFill& fill);
  void AddRefs(int change);
  // A file that was read, or was to be; `reason` as in ErrorInfo, "" if it went well.
  void CountLoad(absl::string_view reason, uint64_t bytes);
  void CountRaisedBytes(uint64_t bytes);  // copied from the host's tier to the device's

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
  const std::vector<std::string> load_reasons_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_METRICS_STORE_METRICS_H_
