#ifndef HOTLORA_SRC_ADAPTERS_STORED_FOLDERS_H_
#define HOTLORA_SRC_ADAPTERS_STORED_FOLDERS_H_

// The folders whose files a store serves. No LibTorch here.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_writer.h"
#include "src/adapters/store_reader.h"

namespace hotlora {

// A folder of one kind of files, and who reads and writes them.
struct StoredFolder {
  // `of_files` may hold a reference to `files`.
  StoredFolder(std::unique_ptr<const AdapterDirectory> files, std::unique_ptr<const StoreReader> of_files)
      : directory(std::move(files)),
        reader(std::move(of_files)),
        writer(directory->kind().is_folder ? nullptr : std::make_unique<AdapterWriter>(*directory)) {}

  std::unique_ptr<const AdapterDirectory> directory;
  std::unique_ptr<const StoreReader> reader;
  std::unique_ptr<const AdapterWriter> writer;  // null if nothing is written into the folder
};

// Most stores have one folder. The files of several, of different kinds, share one memory: in it a file has its kind's
// `prefix` before its name, so that no two kinds have a name in common. Thread-safe.
class StoredFolders {
 public:
  // The first is of the kind whose prefix is empty. REQUIRES: at least one, no kind twice.
  explicit StoredFolders(std::vector<StoredFolder> folders) : folders_(std::move(folders)) {}

  // Where the file of that name lies, and what it is called there.
  struct Place {
    const StoredFolder& folder;
    absl::string_view name;

    const StoredKind& kind() const { return folder.directory->kind(); }
    // FailedPrecondition (the kind's `folder_read_only`) if there is none.
    absl::StatusOr<const AdapterWriter*> writer() const;
  };
  Place Of(absl::string_view name) const;

  const std::vector<StoredFolder>& all() const { return folders_; }
  const StoredKind& kind(absl::string_view name) const { return Of(name).kind(); }
  // The first one's. All have its reasons `budget` and `in_use`.
  const StoredKind& kind() const { return folders_.front().directory->kind(); }

  // `adapter "styles/neon"`
  std::string Label(absl::string_view name) const;
  // The same status with the label before its message.
  absl::Status Named(absl::string_view name, const absl::Status& status) const;

  // AdapterDirectory's and StoreReader's; the info has the name with its prefix.
  absl::StatusOr<AdapterVersion> Find(absl::string_view name) const;
  absl::StatusOr<ReadAdapter> Read(const std::string& name, AdapterVersion& version, AcquireReport& report) const;

 private:
  const std::vector<StoredFolder> folders_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_STORED_FOLDERS_H_
