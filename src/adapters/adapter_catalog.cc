#include "src/adapters/adapter_catalog.h"

#include <set>

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
    info.bytes = version.bytes();
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

std::vector<std::string> AdapterCatalog::Names() const {
  std::set<std::string> names;
  const auto add = [&](const auto& entries) {
    for (const auto& entry : entries) {
      names.insert(entry.first);
    }
  };
  add(known_);
  add(failures_);
  add(counts_);
  return {names.begin(), names.end()};
}

}  // namespace hotlora
