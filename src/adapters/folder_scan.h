#ifndef HOTLORA_SRC_ADAPTERS_FOLDER_SCAN_H_
#define HOTLORA_SRC_ADAPTERS_FOLDER_SCAN_H_

// What lies in a folder of adapters, ControlNets or embeddings, by its names. No LibTorch here.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "src/adapters/served_folder.h"
#include "src/adapters/stored_kind.h"

namespace hotlora {

inline constexpr absl::string_view kAdapterExtension = ".safetensors";

// A folder's .safetensors files, and the folders that its kind takes for one (PEFT folders), at one moment. Opens
// folders alone: whether a file can be read, or is an adapter at all, is not asked here. Passed over are names that
// begin with a dot and files of other kinds, such as previews and texts. Immutable, so thread-safe.
class FolderScan {
 public:
  struct Entry {
    std::string path;   // below the folder, as the file system spells it, without the extension
    std::string fault;  // why no request can name it; empty if one can
  };

  // Looks at no more than 100,000 directory entries, and logs if that was not all. `kind` outlives it. `now` is the
  // time; tests give another one.
  FolderScan(const OpenedFolder& folder, const StoredKind& kind, absl::Time now = absl::Now());

  // By name (NormalizeName); what has no name is under what can be shown of its path (EscapeName).
  const std::map<std::string, Entry>& entries() const { return entries_; }

  // Files of names that end in .pt or .ckpt, which are not read.
  const std::vector<std::string>& pickles() const { return pickles_; }

  // Links to nothing that may have been folders: a drive that is not there, for example.
  const std::vector<std::string>& dangling() const { return dangling_; }

  absl::Time began() const { return began_; }

  // Whether a scan would find the same: no folder in it has changed since, nor so shortly before it that the file
  // system's clock, which may tick every 2 s, cannot tell. False after 5 s, because some file systems do not tell when
  // an entry came or went (exFAT, some network drives).
  bool IsCurrent(const OpenedFolder& folder, absl::Time now = absl::Now()) const;

 private:
  struct Walk;

  void Add(const std::string& path, std::string fault);
  void AddUnopened(const std::string& path, bool is_link, int error);
  void AddFile(const std::string& folder, const std::string& path, absl::string_view leaf, bool dangles);
  void ScanFolder(Walk& walk, const std::string& path, bool is_link, int depth);

  const StoredKind& kind_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> pickles_, dangling_;
  std::vector<std::pair<std::string, FileVersion>> folders_;
  const absl::Time began_;
  bool complete_ = true;  // each folder could be opened, or is a link that leaves
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_FOLDER_SCAN_H_
