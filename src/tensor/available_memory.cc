#include "src/tensor/available_memory.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include <c10/core/CachingDeviceAllocator.h>

#include "src/base/cgroups.h"
#include "src/tensor/memory_stats.h"

namespace hotlora {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

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
  const std::string statm = ReadKernelFile(root + "/proc/self/statm");
  int64_t pages = 0;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      limit.rlim_cur > static_cast<rlim_t>(kUnlimited) || !absl::SimpleAtoi(statm.substr(0, statm.find(' ')), &pages)) {
    return kUnlimited;
  }
  return static_cast<int64_t>(limit.rlim_cur) - pages * sysconf(_SC_PAGESIZE);
}

// What a version of cgroups calls its files.
struct CgroupFiles {
  const char *limit, *usage, *inactive;
};
constexpr CgroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr CgroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

int64_t CgroupsLeft(const std::string& root) {
  int64_t least = kUnlimited;
  for (const Cgroup& group : CgroupsOf("memory", root)) {
    const CgroupFiles& files = group.version == 1 ? kVersion1 : kVersion2;
    const std::optional<int64_t> limit = ReadKernelNumber(group.folder + files.limit);
    const std::optional<int64_t> usage =
        limit.has_value() ? ReadKernelNumber(group.folder + files.usage) : std::nullopt;
    if (usage.has_value()) {
      const int64_t inactive = FindNumber(ReadKernelFile(group.folder + "memory.stat"), files.inactive).value_or(0);
      least = std::min(least, *limit - *usage + inactive);
    }
  }
  return least;
}

int64_t MachineLeft(const std::string& root) {
  const std::string text = ReadKernelFile(root + "/proc/meminfo");
  const auto bytes = [&text](absl::string_view key) -> std::optional<int64_t> {
    const std::optional<int64_t> kib = FindNumber(text, key);
    return kib.has_value() ? std::optional(*kib * 1024) : std::nullopt;
  };
  int64_t left = bytes("MemAvailable").value_or(kUnlimited);
  const std::optional<int64_t> limit = bytes("CommitLimit"), promised = bytes("Committed_AS");
  if (ReadKernelNumber(root + "/proc/sys/vm/overcommit_memory") == 2 && limit.has_value() && promised.has_value()) {
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
