#include "src/adapters/adapter_catalog.h"

#include "absl/container/flat_hash_set.h"

namespace hotlora {

void AdapterCatalog::NoteSound(const AdapterInfo& info, const AdapterVersion& version) {
  failures_.erase(info.name);
  known_[info.name] = {info, version};
}

void AdapterCatalog::NoteFailure(absl::string_view name, const AdapterVersion& version, const absl::Status& status) {
  failures_[name] = {version, status};
  ++counts_[name].failed_reads;
}

const AdapterCatalog::Failure* AdapterCatalog::FailureOf(absl::string_view name, const AdapterVersion& version) const {
  const auto failure = failures_.find(name);
  return failure != failures_.end() && failure->second.version == version ? &failure->second : nullptr;
}

AdapterInfo AdapterCatalog::Describe(absl::string_view name, const AdapterVersion& version) const {
  AdapterInfo info;
  if (const auto known = known_.find(name); known != known_.end() && known->second.version == version) {
    info = known->second.info;
  } else {
    info.name = std::string(name);
    info.bytes = version.weights.size;
  }
  info.tier = AdapterTier::kDisk;
  return info;
}

const AdapterCounts* AdapterCatalog::CountsOf(absl::string_view name) const {
  const auto counts = counts_.find(name);
  return counts == counts_.end() ? nullptr : &counts->second;
}

void AdapterCatalog::Forget(absl::string_view name) {
  known_.erase(name);
  failures_.erase(name);
  counts_.erase(name);
}

void AdapterCatalog::ForgetVanished(const std::vector<ListedAdapter>& listed) {
  if (known_.size() + failures_.size() <= listed.size() && counts_.size() <= listed.size()) {
    return;
  }
  absl::flat_hash_set<absl::string_view> names;
  for (const ListedAdapter& adapter : listed) {
    names.insert(adapter.name);
  }
  const auto vanished = [&](const auto& entry) { return !names.contains(entry.first); };
  absl::erase_if(known_, vanished);
  absl::erase_if(failures_, vanished);
  absl::erase_if(counts_, vanished);
}

}  // namespace hotlora
