#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_CATALOG_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_CATALOG_H_

// What is known of adapters that are in no tier of memory. No LibTorch here.

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_statistics.h"

namespace hotlora {

// What the last sound read and the last failed read of each file said, and what was counted of it. For messages and
// listings. Not thread-safe.
class AdapterCatalog {
 public:
  struct Known {
    AdapterInfo info;
    AdapterVersion version;
  };
  struct Failure {
    AdapterVersion version;
    absl::Status status;
  };

  void NoteSound(const AdapterInfo& info, const AdapterVersion& version);
  void NoteFailure(absl::string_view name, const AdapterVersion& version, const absl::Status& status);

  // nullptr if that version was not read, or went well.
  const Failure* FailureOf(absl::string_view name, const AdapterVersion& version) const;

  // As far as it is known, on disk.
  AdapterInfo Describe(absl::string_view name, const AdapterVersion& version) const;

  AdapterCounts& Counts(absl::string_view name) { return counts_[name]; }
  // nullptr if nothing was counted.
  const AdapterCounts* CountsOf(absl::string_view name) const;

  void Forget(absl::string_view name);
  // Whatever is known of, sorted.
  std::vector<std::string> Names() const;

 private:
  absl::flat_hash_map<std::string, Known> known_;
  absl::flat_hash_map<std::string, Failure> failures_;
  absl::flat_hash_map<std::string, AdapterCounts> counts_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_CATALOG_H_
