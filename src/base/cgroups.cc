#include "src/base/cgroups.h"

#include <algorithm>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "src/base/bounded_read.h"

namespace hotlora {
namespace {

// Microseconds of processor time in a period of so many.
struct Quota {
  int64_t time = 0, period = 0;
};

std::optional<Quota> QuotaOf(const Cgroup& group) {
  Quota quota;
  if (group.version == 1) {
    quota = {ReadKernelNumber(group.folder + "cpu.cfs_quota_us").value_or(0),
             ReadKernelNumber(group.folder + "cpu.cfs_period_us").value_or(0)};
  } else {
    const std::string text = ReadKernelFile(group.folder + "cpu.max");  // "200000 100000", or "max 100000"
    const std::vector<absl::string_view> words = absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty());
    if (words.size() != 2 || !absl::SimpleAtoi(words[0], &quota.time) || !absl::SimpleAtoi(words[1], &quota.period)) {
      return std::nullopt;
    }
  }
  return quota.time > 0 && quota.period > 0 ? std::optional(quota) : std::nullopt;  // -1 is none
}

}  // namespace

std::string ReadKernelFile(const std::string& path) {
  constexpr size_t kMostBytes = 65536;
  return ReadWholeFile(path, kMostBytes).value_or("");
}

std::optional<int64_t> ReadKernelNumber(const std::string& path) {
  int64_t value = 0;
  return absl::SimpleAtoi(ReadKernelFile(path), &value) ? std::optional(value) : std::nullopt;
}

// Lines of /proc/self/cgroup: "0::/path" of version 2, "4:cpu,memory:/path" of version 1.
std::vector<Cgroup> CgroupsOf(absl::string_view controller, const std::string& root) {
  std::vector<Cgroup> groups;
  const std::string lines = ReadKernelFile(root + "/proc/self/cgroup");
  for (const absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() < 3 || !absl::StartsWith(fields[2], "/")) {
      continue;
    }
    const std::vector<absl::string_view> controllers = absl::StrSplit(fields[1], ',');
    const bool first_version = std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
    if (fields[0] != "0" && !first_version) {
      continue;
    }
    const std::string mount =
        absl::StrCat(root, "/sys/fs/cgroup", first_version ? "/" : "", first_version ? controller : "");
    for (std::string path = fields[2] == "/" ? "" : fields[2];; path.resize(path.rfind('/'))) {
      groups.push_back({first_version ? 1 : 2, mount + path + "/"});
      if (path.empty()) {
        break;
      }
    }
  }
  return groups;
}

std::optional<int> CpusOfQuota(const std::string& root) {
  std::optional<int> least;
  for (const Cgroup& group : CgroupsOf("cpu", root)) {
    if (const std::optional<Quota> quota = QuotaOf(group); quota.has_value()) {
      const int64_t cpus = (quota->time - 1) / quota->period + 1;
      least = static_cast<int>(std::min<int64_t>(cpus, least.value_or(std::numeric_limits<int>::max())));
    }
  }
  return least;
}

}  // namespace hotlora
