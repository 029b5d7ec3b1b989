#ifndef HOTLORA_SRC_BASE_CGROUPS_H_
#define HOTLORA_SRC_BASE_CGROUPS_H_

// What a container, a pod or a service may use: the files of Linux's cgroups, versions 1 and 2.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace hotlora {

struct Cgroup {
  int version = 2;
  std::string folder;

  // A file's text, "" if it cannot be read.
  std::string Read(absl::string_view file) const;

  // nullopt if the file is not there, or says no number ("max").
  std::optional<int64_t> ReadNumber(absl::string_view file) const;
};

// The groups that limit this process for `controller` ("memory", "cpu"): its own and all above it. A container may see
// its own group as the mount's root, under another path, so some of the folders may not be there.
//
// `root` is put before /proc and /sys, for tests.
std::vector<Cgroup> CgroupsOf(absl::string_view controller, const std::string& root = "");

// How many CPUs' time this process may use: the least quota of its groups, rounded up; nullopt without one.
std::optional<int> CpusOfQuota(const std::string& root = "");

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_CGROUPS_H_
