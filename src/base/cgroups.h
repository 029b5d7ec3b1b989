#ifndef HOTLORA_SRC_BASE_CGROUPS_H_
#define HOTLORA_SRC_BASE_CGROUPS_H_

// What a container, a pod or a service may use: the files of Linux's cgroups, versions 1 and 2.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace hotlora {

// A file of /proc or /sys: its text, "" if it cannot be read.
std::string ReadKernelFile(const std::string& path);

// The number that the file holds; nullopt if it is not there, or holds none ("max").
std::optional<int64_t> ReadKernelNumber(const std::string& path);

struct Cgroup {
  int version = 2;
  std::string folder;  // ends in "/"
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
