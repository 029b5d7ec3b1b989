#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_WRITER_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_WRITER_H_

// Puts adapter files, or those of another kind, into their folder and takes them out of it. No LibTorch here.

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_directory.h"
#include "src/base/mutex.h"

namespace hotlora {

// A file that is not visible yet: hidden in the adapter folder, and removed with this object unless it was committed.
// Movable.
class IncomingFile {
 public:
  IncomingFile(const StoredKind& kind, std::string adapter, FileDescriptor folder, std::string hidden_name,
               FileDescriptor file)
      : kind_(kind),
        adapter_(std::move(adapter)),
        folder_(std::move(folder)),
        hidden_name_(std::move(hidden_name)),
        file_(std::move(file)) {}
  IncomingFile(IncomingFile&& other) noexcept
      : kind_(other.kind_),
        adapter_(std::move(other.adapter_)),
        folder_(std::move(other.folder_)),
        hidden_name_(std::exchange(other.hidden_name_, "")),
        file_(std::move(other.file_)) {}
  IncomingFile& operator=(IncomingFile&&) = delete;
  ~IncomingFile();

  absl::Status Append(absl::string_view bytes);

  // Everything is on the disk, and the descriptor stands at the beginning.
  absl::Status Finish();

  int number() const { return file_.number(); }

 private:
  friend class AdapterWriter;
  const StoredKind& kind_;
  std::string adapter_;  // for messages
  FileDescriptor folder_;
  std::string hidden_name_;  // "": committed
  FileDescriptor file_;
};

// Threads  thread-safe
// Errors   with the kind's reasons: InvalidArgument (INVALID_REQUEST) for names that no adapter file can have;
//          FailedPrecondition (NO_ADAPTER_FOLDER, ADAPTER_FOLDER_READ_ONLY); ResourceExhausted (DISK_FULL,
//          OUT_OF_FILES); Internal (ADAPTER_FOLDER) if the disk fails. Messages name the adapter, never a path.
//
// What Commit and Delete answer OK for stays after a power cut. If a process is killed, or the power fails, in the
// middle of a call, the adapter is as before or as after it; of a PEFT folder whose tensors Delete has removed, the
// configuration may be left, which is an error to every reader and is removed by the next Delete.
class AdapterWriter {
 public:
  // `directory` outlives this object and its files.
  explicit AdapterWriter(const AdapterDirectory& directory) : directory_(directory) {}

  const StoredKind& kind() const { return directory_.kind(); }

  // Removes hidden files whose writer is gone: a process that was killed, not another server that shares the folder.
  void RemoveStale() const;

  // OK if a file could get that name. AlreadyExists (ADAPTER_EXISTS) if there is one, unless it is to be
  // replaced; a PEFT folder is never replaced.
  absl::Status CheckFree(absl::string_view name, bool replace) const;

  // A new hidden file with room for `size` bytes on the disk, as far as the file system can promise it.
  absl::StatusOr<IncomingFile> Create(absl::string_view name, uint64_t size) const;

  // Gives the file its name, in one step, and makes the folders of the name. Aborted (ADAPTER_FOLDER_REPLACED) if the
  // adapter folder is another one than the file came into. Internal (ADAPTER_FOLDER), with the file in its folder,
  // if the disk does not confirm that it stays there. REQUIRES: Finish.
  absl::Status Commit(IncomingFile& file, absl::string_view name, bool replace) const;

  // Removes the adapter's file, or its folder's tensors and configuration, or both, and the folders of its name that
  // are empty then. NotFound (ADAPTER_NOT_FOUND). Internal (ADAPTER_FOLDER), with the files gone, if the disk does not
  // confirm it.
  absl::Status Delete(absl::string_view name) const;

 private:
  absl::StatusOr<OpenedFolder> OpenRoot() const;
  absl::Status GiveName(IncomingFile& file, const FileDescriptor& folder, const std::string& path,
                        absl::string_view name, bool replace) const;
  absl::Status CheckFree(const OpenedFolder& root, absl::string_view name, const std::string& path, bool replace) const;

  const AdapterDirectory& directory_;
  mutable Mutex mu_;  // held while a file gets its name or loses it: folders are made and removed then
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_WRITER_H_
