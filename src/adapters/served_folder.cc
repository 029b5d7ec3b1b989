#include "src/adapters/served_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <linux/openat2.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"

namespace hotlora {
namespace {

int64_t Nanoseconds(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }

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

FileDescriptor OpenPath(const std::string& path) {
  return FileDescriptor(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (number_ >= 0) {
    close(number_);
  }
}

absl::StatusOr<FileVersion> FileVersion::Of(int descriptor) {
  struct stat info;
  if (fstat(descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, "cannot inspect the file");
  }
  return FileVersion{static_cast<uint64_t>(info.st_dev), static_cast<uint64_t>(info.st_ino),
                     static_cast<uint64_t>(info.st_size), Nanoseconds(info.st_mtim), Nanoseconds(info.st_ctim)};
}

FileDescriptor OpenedFolder::OpenBelow(const std::string& path, int flags) const {
  if (use_openat2_) {
    return FileDescriptor(OpenBeneath(folder_.number(), path, flags, follow_links_));
  }
  return FileDescriptor(follow_links_ ? openat(folder_.number(), path.c_str(), flags)
                                      : OpenWithoutLinks(folder_.number(), path, flags));
}

bool OpenedFolder::Has(const std::string& path) const {
  return OpenBelow(path, O_PATH | O_NOFOLLOW | O_CLOEXEC).is_open();
}

absl::StatusOr<ServedFolder> ServedFolder::Find(const StoredKind& kind, std::string path, bool follow_links,
                                                bool use_openat2) {
  if (!path.empty()) {
    const FileDescriptor folder = OpenPath(path);
    if (!folder.is_open()) {
      const int error = errno;
      return MakeError(absl::StatusCode::kInvalidArgument, kind.folder,
                       absl::StrCat(kind.folder_noun, " ", path, ": ", strerrordesc_np(error)));
    }
    // Kernels before 5.6 lack openat2 (ENOSYS), and sandboxes may forbid it (EPERM).
    const FileDescriptor probe(OpenBeneath(folder.number(), ".", O_PATH | O_CLOEXEC, follow_links));
    if (!probe.is_open() && (errno == ENOSYS || errno == EPERM)) {
      use_openat2 = false;
    }
  }
  return ServedFolder(kind, std::move(path), follow_links, use_openat2);
}

absl::StatusOr<OpenedFolder> ServedFolder::Open() const {
  if (path_.empty()) {
    return absl::NotFoundError("the server has none");
  }
  FileDescriptor folder = OpenPath(path_);
  if (folder.is_open()) {
    if (gone_->exchange(false)) {
      LogInfo(kind_->folder_noun, " ", path_, " is there again");
    }
    return OpenedFolder(std::move(folder), follow_links_, use_openat2_);
  }
  const int error = errno;
  if (error == EMFILE || error == ENFILE || error == ENOMEM) {
    return absl::ResourceExhaustedError(strerrordesc_np(error));
  }
  if (!gone_->exchange(true)) {
    LogWarning(kind_->folder_noun, " ", path_, " cannot be opened: ", strerrordesc_np(error),
               "; what was in it is not found");
  }
  return error == ENOENT || error == ENOTDIR ? absl::NotFoundError(strerrordesc_np(error))
                                             : absl::FailedPreconditionError(strerrordesc_np(error));
}

}  // namespace hotlora
