#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_

// The disk tier: finds adapters by name in one folder, and never outside it. No LibTorch here.

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

inline constexpr absl::string_view kAdapterExtension = ".safetensors";
inline constexpr absl::string_view kPeftWeights = "adapter_model";  // and the extension
inline constexpr absl::string_view kPeftConfig = "adapter_config.json";

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

// What changes when a file is replaced or written to.
struct FileVersion {
  uint64_t device = 0, inode = 0, size = 0;
  int64_t modified_ns = 0, changed_ns = 0;

  friend bool operator==(const FileVersion& a, const FileVersion& b) {
    return std::tie(a.device, a.inode, a.size, a.modified_ns, a.changed_ns) ==
           std::tie(b.device, b.inode, b.size, b.modified_ns, b.changed_ns);
  }
};

// The version of an adapter: of its tensors, and of a PEFT folder's configuration too.
struct AdapterVersion {
  FileVersion weights;
  std::optional<FileVersion> config;

  friend bool operator==(const AdapterVersion& a, const AdapterVersion& b) {
    return a.weights == b.weights && a.config == b.config;
  }
  friend bool operator!=(const AdapterVersion& a, const AdapterVersion& b) { return !(a == b); }
};

struct ListedAdapter {
  std::string name;
  AdapterVersion version;
};

struct OpenedAdapter {
  FileDescriptor weights;
  std::optional<std::string> peft_config;  // text of adapter_config.json
  AdapterVersion version;
};

// Adapter `a/b` is the file `a/b.safetensors`, or else the PEFT folder `a/b/` with
// adapter_config.json and adapter_model.safetensors (whose own name, `a/b/adapter_model`, is no
// adapter: it would lack its configuration).
//
// Names are checked (ValidateAdapterName) and opened relative to the folder: links that leave it
// are not followed, unless `follow_links` says so, and only regular files count; a FIFO does not
// block. Where the kernel lacks openat2, no links are followed at all without `follow_links`.
// Threads  thread-safe; every call asks the file system
// Errors   NotFound (ADAPTER_NOT_FOUND); FailedPrecondition (ADAPTER_INVALID) for a file that
//          cannot be read, or a PEFT folder without configuration; ResourceExhausted
//          (OUT_OF_FILES). Messages name the adapter, never a path.
class AdapterDirectory {
 public:
  // InvalidArgument where there is no such folder. An empty path is a folder without adapters.
  // `use_openat2` false: as on kernels that lack it.
  static absl::StatusOr<AdapterDirectory> Open(const std::string& path, bool follow_links, bool use_openat2 = true);

  // What version of the adapter there is. Opens and reads nothing.
  absl::StatusOr<AdapterVersion> Find(absl::string_view name) const;

  // Opens the adapter, and reads a PEFT folder's configuration.
  absl::StatusOr<OpenedAdapter> OpenAdapter(absl::string_view name) const;

  // All adapters in the order of their names, down to 8 levels. Hidden files and names that no
  // adapter can have are left out. Looks at no more than 100,000 directory entries, and logs where
  // that was not all.
  std::vector<ListedAdapter> List() const;

  // Opens a path below the folder ("." the folder itself); closed, and errno says why, where that fails.
  FileDescriptor OpenBelow(const std::string& path, int flags) const;

  // The version of an open file.
  static absl::StatusOr<FileVersion> VersionOf(int descriptor);

 private:
  struct Walk;

  AdapterDirectory(FileDescriptor folder, bool follow_links, bool use_openat2)
      : folder_(std::move(folder)), follow_links_(follow_links), use_openat2_(use_openat2) {}

  absl::StatusOr<FileDescriptor> OpenPart(absl::string_view name, const std::string& path, int flags,
                                          FileVersion& version) const;
  absl::StatusOr<OpenedAdapter> OpenParts(absl::string_view name, int flags) const;
  void AddIfThere(Walk& walk, const std::string& name) const;
  void ListFolder(Walk& walk, const std::string& folder, int depth) const;

  FileDescriptor folder_;  // closed: there are no adapters
  bool follow_links_;
  bool use_openat2_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_
