#include "src/adapters/adapter_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <linux/openat2.h>

#include "src/adapters/key_suffix.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kMaxEntries = 100'000;
constexpr uint64_t kMaxConfigBytes = uint64_t{4} << 20;

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
constexpr int kLookFlags = O_PATH | O_CLOEXEC;

absl::Status NotFound(absl::string_view name, absl::string_view why = "") {
  return MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND",
                   absl::StrCat("no adapter ", PrintableName(name), why));
}

absl::Status Unreadable(absl::string_view name, absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_INVALID",
                   absl::StrCat("adapter ", PrintableName(name), " ", why));
}

absl::Status ErrnoStatus(absl::string_view name, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
      return NotFound(name);
    case ELOOP:
    case EXDEV:
      return NotFound(name, ": it is a link that leaves the adapter folder");
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_FILES",
                       absl::StrCat("adapter ", PrintableName(name), " cannot be opened now"));
    default:
      return Unreadable(name, absl::StrCat("cannot be read: ", strerrordesc_np(error)));
  }
}

int64_t Nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

FileVersion VersionFrom(const struct stat& info) {
  return {static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino), static_cast<uint64_t>(info.st_size),
          Nanoseconds(info.st_mtim), Nanoseconds(info.st_ctim)};
}

int OpenBeneath(int folder, const std::string& path, int flags, bool follow_links) {
  struct open_how how = {};
  how.flags = static_cast<uint64_t>(flags);
  how.resolve = RESOLVE_NO_MAGICLINKS | (follow_links ? 0 : RESOLVE_BENEATH);
  int number = -1;
  // EAGAIN: a rename elsewhere left the kernel unsure that the path stays below the folder.
  for (int attempt = 0; attempt < 64; ++attempt) {
    number = static_cast<int>(syscall(SYS_openat2, folder, path.c_str(), &how, sizeof(how)));
    if (number >= 0 || (errno != EINTR && errno != EAGAIN)) {
      break;
    }
  }
  return number;
}

// Without openat2: one component after the other, none of them a link.
int OpenWithoutLinks(int folder, const std::string& path, int flags) {
  FileDescriptor current;
  const std::vector<std::string> parts = absl::StrSplit(path, '/');
  for (size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const int from = current.is_open() ? current.number() : folder;
    FileDescriptor next(openat(from, parts[i].c_str(), (last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW));
    if (!next.is_open()) {
      return -1;
    }
    current = std::move(next);
  }
  return current.Release();
}

absl::StatusOr<std::string> ReadText(absl::string_view name, int descriptor, uint64_t size) {
  if (size > kMaxConfigBytes) {
    return Unreadable(name, absl::StrCat("has a configuration of ", size, " bytes; allowed are ", kMaxConfigBytes));
  }
  std::string text(size, '\0');
  size_t reached = 0;
  while (reached < size) {
    const ssize_t got = read(descriptor, text.data() + reached, size - reached);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return Unreadable(name, "has a configuration that changed while it was read");
    }
    reached += static_cast<size_t>(got);
  }
  return text;
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) {
    close(number_);
  }
}

absl::StatusOr<AdapterDirectory> AdapterDirectory::Open(const std::string& path, bool follow_links, bool use_openat2) {
  if (path.empty()) {
    return AdapterDirectory(FileDescriptor(), follow_links, use_openat2);
  }
  FileDescriptor folder(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) {
    const int error = errno;
    return MakeError(absl::StatusCode::kInvalidArgument, "ADAPTER_FOLDER",
                     absl::StrCat("--adapters ", path, ": ", strerrordesc_np(error)));
  }
  // Kernels before 5.6 lack openat2 (ENOSYS), and sandboxes may forbid it (EPERM).
  const FileDescriptor probe(OpenBeneath(folder.number(), ".", kLookFlags, follow_links));
  if (!probe.is_open() && (errno == ENOSYS || errno == EPERM)) {
    use_openat2 = false;
  }
  return AdapterDirectory(std::move(folder), follow_links, use_openat2);
}

FileDescriptor AdapterDirectory::OpenBelow(const std::string& path, int flags) const {
  if (use_openat2_) {
    return FileDescriptor(OpenBeneath(folder_.number(), path, flags, follow_links_));
  }
  return FileDescriptor(follow_links_ ? openat(folder_.number(), path.c_str(), flags)
                                      : OpenWithoutLinks(folder_.number(), path, flags));
}

absl::StatusOr<FileVersion> AdapterDirectory::VersionOf(int descriptor) {
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, "cannot inspect the file");
  }
  return VersionFrom(info);
}

absl::StatusOr<FileDescriptor> AdapterDirectory::OpenPart(absl::string_view name, const std::string& path, int flags,
                                                          FileVersion& version) const {
  FileDescriptor file = OpenBelow(path, flags);
  if (!file.is_open()) {
    return ErrnoStatus(name, errno);
  }
  struct stat info;
  if (fstat(file.number(), &info) != 0) {
    return ErrnoStatus(name, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return NotFound(name, ": it is no regular file");
  }
  version = VersionFrom(info);
  return file;
}

absl::StatusOr<OpenedAdapter> AdapterDirectory::OpenParts(absl::string_view name, int flags) const {
  const size_t leaf = name.rfind('/');
  if (!folder_.is_open() || !ValidateAdapterName(name).ok() ||
      name.substr(leaf == absl::string_view::npos ? 0 : leaf + 1) == kPeftWeights) {
    return NotFound(name);
  }
  OpenedAdapter opened;
  absl::StatusOr<FileDescriptor> file =
      OpenPart(name, absl::StrCat(name, kAdapterExtension), flags, opened.version.weights);
  if (file.ok()) {
    opened.weights = *std::move(file);
    return opened;
  }
  absl::StatusOr<FileDescriptor> weights =
      OpenPart(name, absl::StrCat(name, "/", kPeftWeights, kAdapterExtension), flags, opened.version.weights);
  if (!weights.ok()) {
    // Where there is no folder either, what was wrong with the file says more.
    return absl::IsNotFound(weights.status()) ? file.status() : weights.status();
  }
  opened.weights = *std::move(weights);
  FileVersion config_version;
  const absl::StatusOr<FileDescriptor> config =
      OpenPart(name, absl::StrCat(name, "/", kPeftConfig), flags, config_version);
  if (!config.ok()) {
    return absl::IsNotFound(config.status()) ? Unreadable(name, "lacks adapter_config.json beside its tensors")
                                             : config.status();
  }
  opened.version.config = config_version;
  if ((flags & O_PATH) == 0) {
    ABSL_ASSIGN_OR_RETURN(opened.peft_config, ReadText(name, config->number(), config_version.size));
  }
  return opened;
}

absl::StatusOr<AdapterVersion> AdapterDirectory::Find(absl::string_view name) const {
  ABSL_ASSIGN_OR_RETURN(const OpenedAdapter opened, OpenParts(name, kLookFlags));
  return opened.version;
}

absl::StatusOr<OpenedAdapter> AdapterDirectory::OpenAdapter(absl::string_view name) const {
  return OpenParts(name, kReadFlags);
}

struct AdapterDirectory::Walk {
  std::vector<ListedAdapter> found;
  std::set<std::pair<uint64_t, uint64_t>> above;  // folders from here to the top: a link may form a ring
  size_t entries = 0;
};

void AdapterDirectory::AddIfThere(Walk& walk, const std::string& name) const {
  if (absl::StatusOr<AdapterVersion> version = Find(name); version.ok()) {
    walk.found.push_back({name, *std::move(version)});
  }
}

void AdapterDirectory::ListFolder(Walk& walk, const std::string& folder, int depth) const {
  FileDescriptor opened = OpenBelow(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  struct stat info;
  if (!opened.is_open() || fstat(opened.number(), &info) != 0) {
    return;
  }
  const auto place = walk.above.emplace(info.st_dev, info.st_ino);
  if (!place.second) {
    return;
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(opened.number()), closedir);
  if (entries != nullptr) {
    opened.Release();
    while (const dirent* const entry = readdir(entries.get())) {
      if (++walk.entries > kMaxEntries) {
        break;
      }
      const std::string path = absl::StrCat(folder, folder.empty() ? "" : "/", entry->d_name);
      if (!ValidateAdapterName(path).ok()) {
        continue;  // also ".", ".." and hidden files
      }
      const bool maybe_folder = entry->d_type == DT_DIR || entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN;
      if (absl::EndsWith(path, kAdapterExtension)) {
        AddIfThere(walk, std::string(absl::StripSuffix(path, kAdapterExtension)));
      }
      if (maybe_folder) {
        AddIfThere(walk, path);
        if (depth < kMaxDepth) {
          ListFolder(walk, path, depth + 1);
        }
      }
    }
  }
  walk.above.erase(place.first);
}

std::vector<ListedAdapter> AdapterDirectory::List() const {
  Walk walk;
  if (folder_.is_open()) {
    ListFolder(walk, "", 1);
  }
  if (walk.entries > kMaxEntries) {
    LogWarning("adapter folder has more than ", kMaxEntries, " entries: not all are listed");
  }
  std::sort(walk.found.begin(), walk.found.end(),
            [](const ListedAdapter& a, const ListedAdapter& b) { return a.name < b.name; });
  // A file and a folder of one name are one adapter.
  walk.found.erase(std::unique(walk.found.begin(), walk.found.end(),
                               [](const ListedAdapter& a, const ListedAdapter& b) { return a.name == b.name; }),
                   walk.found.end());
  return std::move(walk.found);
}

}  // namespace hotlora
