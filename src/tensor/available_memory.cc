#include "src/tensor/available_memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include <c10/core/CachingDeviceAllocator.h>

#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A file with nothing but a number. nullopt if there is no such file or no number in it ("max").
std::optional<int64_t> ReadNumber(const std::string& path) {
  int64_t value = 0;
  return absl::SimpleAtoi(ReadFile(path), &value) ? std::optional(value) : std::nullopt;
}

// The number behind `key` in a text of lines "key number" or "key: number kB".
std::optional<int64_t> FindNumber(const std::string& text, absl::string_view key) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" :"), absl::SkipEmpty());
    int64_t value = 0;
    if (words.size() >= 2 && words[0] == key && absl::SimpleAtoi(words[1], &value)) {
      return value;
    }
  }
  return std::nullopt;
}

int64_t AddressSpaceLeft(const std::string& root) {
  rlimit limit{};
  const std::string statm = ReadFile(root + "/proc/self/statm");
  int64_t pages = 0;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      limit.rlim_cur > static_cast<rlim_t>(kUnlimited) || !absl::SimpleAtoi(statm.substr(0, statm.find(' ')), &pages)) {
    return kUnlimited;
  }
  return static_cast<int64_t>(limit.rlim_cur) - pages * sysconf(_SC_PAGESIZE);
}

// What a version of cgroups calls its files.
struct CgroupFiles {
  const char *mount, *limit, *usage, *inactive;
};
constexpr CgroupFiles kVersion2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"};
constexpr CgroupFiles kVersion1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                   "total_inactive_file"};

// The least of the group `path` and all above it. A container may see its own group as the mount's root, under another
// path: groups that are not there are passed over.
int64_t CgroupLeft(const std::string& root, const CgroupFiles& files, std::string path) {
  int64_t least = kUnlimited;
  while (true) {
    const std::string group = root + files.mount + path + "/";
    const std::optional<int64_t> limit = ReadNumber(group + files.limit);
    const std::optional<int64_t> usage = limit.has_value() ? ReadNumber(group + files.usage) : std::nullopt;
    if (usage.has_value()) {
      const int64_t inactive = FindNumber(ReadFile(group + "memory.stat"), files.inactive).value_or(0);
      least = std::min(least, *limit - *usage + inactive);
    }
    if (path.empty()) {
      return least;
    }
    path.resize(path.rfind('/'));
  }
}

// Lines of /proc/self/cgroup: "0::/path" of version 2, "4:memory:/path" of version 1.
int64_t CgroupsLeft(const std::string& root) {
  int64_t least = kUnlimited;
  const std::string groups = ReadFile(root + "/proc/self/cgroup");
  for (const absl::string_view line : absl::StrSplit(groups, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() < 3 || !absl::StartsWith(fields[2], "/")) {
      continue;
    }
    const std::string path = fields[2] == "/" ? "" : fields[2];
    const std::vector<absl::string_view> controllers = absl::StrSplit(fields[1], ',');
    if (fields[0] == "0") {
      least = std::min(least, CgroupLeft(root, kVersion2, path));
    } else if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      least = std::min(least, CgroupLeft(root, kVersion1, path));
    }
  }
  return least;
}

int64_t MachineLeft(const std::string& root) {
  const std::string text = ReadFile(root + "/proc/meminfo");
  const auto bytes = [&text](absl::string_view key) -> std::optional<int64_t> {
    const std::optional<int64_t> kib = FindNumber(text, key);
    return kib.has_value() ? std::optional(*kib * 1024) : std::nullopt;
  };
  int64_t left = bytes("MemAvailable").value_or(kUnlimited);
  const std::optional<int64_t> limit = bytes("CommitLimit"), promised = bytes("Committed_AS");
  if (ReadNumber(root + "/proc/sys/vm/overcommit_memory") == 2 && limit.has_value() && promised.has_value()) {
    left = std::min(left, *limit - *promised);
  }
  return left;
}

}  // namespace

int64_t AvailableHostMemory(const std::string& root) {
  return std::max<int64_t>(0, std::min({AddressSpaceLeft(root), CgroupsLeft(root), MachineLeft(root)}));
}

int64_t AvailableMemory(c10::Device device) {
  if (device.is_cpu()) {
    return AvailableHostMemory();
  }
  const auto [free, total] =
      c10::getDeviceAllocator(device.type())->getMemoryInfo(device.has_index() ? device.index() : c10::DeviceIndex{0});
  const MemoryStats stats = GetMemoryStats(device);
  return static_cast<int64_t>(free) + stats.reserved - stats.allocated;
}

void ReleaseCachedMemory() { malloc_trim(0); }

}  // namespace hotlora
