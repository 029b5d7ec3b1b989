#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_

// The disk tier: finds adapters, or files of another kind, by name in one folder, and never outside it. No LibTorch
// here.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "src/adapters/folder_scan.h"
#include "src/adapters/served_folder.h"
#include "src/adapters/stored_kind.h"
#include "src/base/mutex.h"

namespace hotlora {

// The version of an adapter: of its tensors, and of its configurations' files as far as it has them.
struct AdapterVersion {
  FileVersion weights;  // of the index, if there are shards
  std::optional<FileVersion> config, more_config;
  std::vector<FileVersion> shards;

  // How many its tensors' files have.
  uint64_t bytes() const {
    uint64_t sum = shards.empty() ? weights.size : 0;
    for (const FileVersion& shard : shards) {
      sum += shard.size;
    }
    return sum;
  }

  friend bool operator==(const AdapterVersion& a, const AdapterVersion& b) {
    return a.weights == b.weights && a.config == b.config && a.more_config == b.more_config && a.shards == b.shards;
  }
  friend bool operator!=(const AdapterVersion& a, const AdapterVersion& b) { return !(a == b); }
};

struct ListedAdapter {
  std::string name;                        // escaped (EscapeName) if it is not a valid name
  absl::StatusOr<AdapterVersion> version;  // why it cannot be served
};

struct OpenedShard {
  std::string name;  // in its folder
  FileDescriptor file;
};

struct OpenedAdapter {
  FileDescriptor weights;  // of the index, if there are shards
  std::vector<OpenedShard> shards;
  std::optional<std::string> config, more_config;  // texts of its configurations' files
  std::string config_name;                         // of the first one's, in its folder
  AdapterVersion version;
};

// Unavailable (FILE_UNREADABLE), with a retry delay: the disk failed, which says nothing about the file.
absl::Status UnreadableNow(absl::string_view what, absl::string_view why);

// Adapter `a/b` is the file `a/b.safetensors`, or else the PEFT folder `a/b/` with
// adapter_config.json and adapter_model.safetensors (whose own name, `a/b/adapter_model`, is
// not an adapter: it would lack its configuration).
//
// That is for kAdapterKind; other kinds say themselves what a folder has (stored_kind.h), and a configuration may lie
// beside a file. Of a kind that `is_folder` there is one file, the folder itself, under any name.
//
// Each call opens the folder again, so that it sees what the path names now: the folder may be replaced as a whole.
// Names are normalised (NormalizeName) and opened relative to that folder, by ServedFolder's rules for links; a file
// may have any Unicode form of the name. Only regular files count; a FIFO does not block.
//
// Threads  thread-safe; every call asks the file system
//
// Errors   with the kind's reasons: NotFound (ADAPTER_NOT_FOUND; ADAPTER_FOLDER_MISSING if the folder itself is gone);
//          FailedPrecondition (ADAPTER_INVALID) for a file that may not be read, two files of one name, or a PEFT
//          folder that lacks one of its two files; ResourceExhausted (OUT_OF_FILES); Unavailable (FILE_UNREADABLE) if
//          the disk fails. Messages name the adapter, never a path.
class AdapterDirectory {
 public:
  explicit AdapterDirectory(ServedFolder folder) : folder_(std::move(folder)) {}

  // InvalidArgument (ADAPTER_FOLDER) if there is no such folder. An empty path is a folder without adapters.
  static absl::StatusOr<AdapterDirectory> Open(const std::string& path, bool follow_links, bool use_openat2 = true,
                                               const StoredKind& kind = kAdapterKind);

  const ServedFolder& folder() const { return folder_; }
  const StoredKind& kind() const { return folder_.kind(); }

  // What version of the adapter there is. Opens and reads nothing but an index of shards.
  absl::StatusOr<AdapterVersion> Find(absl::string_view name) const;

  // Opens the adapter, and reads a PEFT folder's configuration.
  absl::StatusOr<OpenedAdapter> OpenAdapter(absl::string_view name) const;

  // Up to `limit` adapters and files that could be one, in the order of their names, beginning after `after` ("": from
  // the start). The folder is scanned for the first page, unless nothing in it has changed, and not for the others.
  std::vector<ListedAdapter> List(absl::string_view after, size_t limit) const;

  // Says in the log which files cannot be served and why, which are not read because they are pickles, and which links
  // lead to nothing.
  void LogWhatIsNotServed() const;

  // Where in `folder` the adapter of that (normal) name lies, or would lie: its path without extension.
  absl::StatusOr<std::string> PathOf(const OpenedFolder& folder, absl::string_view name) const;

  // How often the folder was scanned.
  uint64_t scans_for_test() const;

 private:
  struct LastScan {
    Mutex mu;
    std::shared_ptr<const FolderScan> scan ABSL_GUARDED_BY(mu);
    uint64_t count ABSL_GUARDED_BY(mu) = 0;
  };

  absl::StatusOr<OpenedFolder> OpenFolder(absl::string_view name) const;
  std::shared_ptr<const FolderScan> Scan(const OpenedFolder& folder, absl::Time not_before) const;
  absl::StatusOr<OpenedAdapter> OpenName(absl::string_view name, int flags) const;

  ServedFolder folder_;
  std::unique_ptr<LastScan> last_ = std::make_unique<LastScan>();
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_DIRECTORY_H_
