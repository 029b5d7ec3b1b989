#ifndef HOTLORA_SRC_ADAPTERS_SERVED_FOLDER_H_
#define HOTLORA_SRC_ADAPTERS_SERVED_FOLDER_H_

// A folder whose files are served, and never anything outside it. No LibTorch here.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/stored_kind.h"

namespace hotlora {

// An open file descriptor. Movable.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~FileDescriptor();

  int number() const { return number_; }
  bool is_open() const { return number_ >= 0; }
  int Release() { return std::exchange(number_, -1); }

 private:
  int number_ = -1;
};

// What changes if a file is replaced or written to, or if an entry of a folder comes or goes.
struct FileVersion {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t modified_ns = 0, changed_ns = 0;

  friend bool operator==(const FileVersion& a, const FileVersion& b) {
    return std::tie(a.device, a.inode, a.size, a.modified_ns, a.changed_ns) ==
           std::tie(b.device, b.inode, b.size, b.modified_ns, b.changed_ns);
  }
  friend bool operator!=(const FileVersion& a, const FileVersion& b) { return !(a == b); }

  // The version of an open file.
  static absl::StatusOr<FileVersion> Of(int descriptor);
};

// The folder that the path named when it was opened. It stays that folder, also if the path names another one later.
// Movable; thread-safe.
class OpenedFolder {
 public:
  OpenedFolder(FileDescriptor folder, bool follow_links, bool use_openat2)
      : folder_(std::move(folder)), follow_links_(follow_links), use_openat2_(use_openat2) {}

  // Opens a path below the folder ("." the folder itself). If that fails, the result is closed and errno says why:
  // EXDEV or ELOOP for a link that leaves the folder.
  FileDescriptor OpenBelow(const std::string& path, int flags) const;

  // Whether the path is there, as a link too.
  bool Has(const std::string& path) const;

  int number() const { return folder_.number(); }

 private:
  FileDescriptor folder_;
  bool follow_links_;
  bool use_openat2_;
};

// A folder by its path. The path itself may be a link. Below it, links that leave it are not followed, unless
// `follow_links` says so. If the kernel lacks openat2, no links are followed at all without `follow_links`.
// Movable; thread-safe.
class ServedFolder {
 public:
  // `kind` outlives it. InvalidArgument (the kind's reason `folder`) if there is no such folder. An empty path is a
  // folder that is never there. `use_openat2` false: as on kernels that lack it.
  static absl::StatusOr<ServedFolder> Find(const StoredKind& kind, std::string path, bool follow_links,
                                           bool use_openat2);

  // The folder that the path names now. If it is gone, and if it is there again, the log says so once.
  //   NotFound             the path names no folder
  //   ResourceExhausted    there are too many open files
  //   FailedPrecondition   it cannot be opened for another reason
  absl::StatusOr<OpenedFolder> Open() const;

  const StoredKind& kind() const { return *kind_; }
  const std::string& path() const { return path_; }

 private:
  ServedFolder(const StoredKind& kind, std::string path, bool follow_links, bool use_openat2)
      : kind_(&kind), path_(std::move(path)), follow_links_(follow_links), use_openat2_(use_openat2) {}

  const StoredKind* kind_;
  std::string path_;
  bool follow_links_;
  bool use_openat2_;
  std::unique_ptr<std::atomic<bool>> gone_ = std::make_unique<std::atomic<bool>>(false);
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_SERVED_FOLDER_H_
