#include "src/adapters/folder_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "src/base/logging.h"
#include "src/base/resource_name.h"

namespace hotlora {
namespace {

// Deeper than names reach, so that what lies too deep is told.
constexpr int kMaxDepth = 32;
constexpr size_t kMaxEntries = 100'000;
constexpr absl::Duration kClockTick = absl::Seconds(2);
constexpr absl::Duration kLongestTrust = absl::Seconds(5);
constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

enum class Kind { kFile, kFolder, kDanglingLink };

// The kind of what a link points to.
Kind KindOf(int parent, const dirent& entry) {
  if (entry.d_type != DT_LNK && entry.d_type != DT_UNKNOWN) {
    return entry.d_type == DT_DIR ? Kind::kFolder : Kind::kFile;
  }
  struct stat info;
  if (fstatat(parent, entry.d_name, &info, 0) != 0) {
    return Kind::kDanglingLink;
  }
  return S_ISDIR(info.st_mode) ? Kind::kFolder : Kind::kFile;
}

}  // namespace

struct FolderScan::Walk {
  const OpenedFolder& root;
  std::set<std::pair<uint64_t, uint64_t>> above = {};  // folders from here to the top: a link may form a ring
  size_t seen = 0;
};

FolderScan::FolderScan(const OpenedFolder& folder, const StoredKind& kind, absl::Time now) : kind_(kind), began_(now) {
  Walk walk{folder};
  ScanFolder(walk, "", /*is_link=*/false, 1);
  if (walk.seen > kMaxEntries) {
    LogWarning(kind.folder_noun, " has more than ", kMaxEntries, " entries: not all are listed");
  }
}

bool FolderScan::IsCurrent(const OpenedFolder& folder, absl::Time now) const {
  return complete_ && absl::AbsDuration(now - began_) < kLongestTrust &&
         std::all_of(folders_.begin(), folders_.end(), [&](const auto& seen) {
           const auto& [path, version] = seen;
           const FileDescriptor opened = folder.OpenBelow(path.empty() ? "." : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
           const absl::StatusOr<FileVersion> current = FileVersion::Of(opened.number());
           const absl::Time changed = absl::FromUnixNanos(std::max(version.modified_ns, version.changed_ns));
           return current.ok() && *current == version && changed + kClockTick < began_;
         });
}

void FolderScan::Add(const std::string& path, std::string fault) {
  const absl::StatusOr<std::string> name = NormalizeName(path);
  if (!name.ok()) {
    entries_[EscapeName(path)] = {path, absl::StrCat("its name ", name.status().message())};
    return;
  }
  if (*name != path && IsAscii(*name)) {  // KELVIN SIGN and two more: nothing but a scan could find them
    fault = absl::StrCat("its name has a character that only looks like one of \"", *name, "\"");
  }
  const auto [entry, is_new] = entries_.try_emplace(*name, Entry{path, std::move(fault)});
  if (!is_new && entry->second.path != path) {
    entry->second.fault = "two files have this name, in two forms of Unicode: rename one";
  }
}

void FolderScan::AddUnopened(const std::string& path, bool is_link, int error) {
  if (is_link && (error == EXDEV || error == ELOOP || error == ENOTDIR)) {
    Add(path, "it is a link that leaves the folder: nothing behind it is served");
  } else if (error != ENOENT) {
    complete_ = false;
    Add(path, absl::StrCat("the folder cannot be read: ", strerrordesc_np(error)));
  }
}

void FolderScan::AddFile(const std::string& folder, const std::string& path, absl::string_view leaf, bool dangles) {
  const absl::string_view stem = absl::StripSuffix(leaf, kAdapterExtension);
  const bool is_config = leaf == kind_.folder_config;
  if (is_config || (stem != leaf && kind_.IsFolderWeights(stem))) {
    if (!folder.empty()) {
      Add(folder, "");
    } else if (!is_config) {
      Add(std::string(stem), absl::StrCat("the files of a ", kind_.layout, " lie in no folder of their own"));
    }
  } else if (absl::EndsWith(leaf, kAdapterExtension)) {
    Add(std::string(absl::StripSuffix(path, kAdapterExtension)), "");
  } else if (absl::EndsWithIgnoreCase(leaf, kAdapterExtension)) {
    Add(path, "its ending is not .safetensors in small letters");
  } else if (absl::EndsWithIgnoreCase(leaf, ".pt") || absl::EndsWithIgnoreCase(leaf, ".ckpt")) {
    pickles_.push_back(EscapeName(path));
  } else if (dangles) {
    dangling_.push_back(EscapeName(path));
  }
}

void FolderScan::ScanFolder(Walk& walk, const std::string& path, bool is_link, int depth) {
  FileDescriptor opened = walk.root.OpenBelow(path.empty() ? "." : path, kFolderFlags);
  if (!opened.is_open()) {
    AddUnopened(path, is_link, errno);
    return;
  }
  const absl::StatusOr<FileVersion> version = FileVersion::Of(opened.number());
  const int number = opened.number();
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(number), closedir);
  if (!version.ok() || entries == nullptr) {
    complete_ = false;
    return;
  }
  opened.Release();  // closedir closes it
  const auto on_the_way = walk.above.emplace(version->device, version->inode);
  if (!on_the_way.second) {
    return;
  }
  folders_.emplace_back(path, *version);
  while (const dirent* const entry = readdir(entries.get())) {
    const std::string leaf = entry->d_name;
    if (leaf.front() == '.') {
      continue;
    }
    if (++walk.seen > kMaxEntries) {
      break;
    }
    const std::string child = absl::StrCat(path, path.empty() ? "" : "/", leaf);
    const Kind kind = KindOf(number, *entry);
    if (kind != Kind::kFolder) {
      AddFile(path, child, leaf, kind == Kind::kDanglingLink);
    } else if (depth < kMaxDepth) {
      ScanFolder(walk, child, entry->d_type == DT_LNK, depth + 1);
    }
  }
  walk.above.erase(on_the_way.first);
}

}  // namespace hotlora
