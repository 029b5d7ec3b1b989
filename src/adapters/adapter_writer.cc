#include "src/adapters/adapter_writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr absl::string_view kHiddenPrefix = ".hotlora-upload-";
constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

absl::Status BadName(absl::string_view why) { return InvalidRequest({{"name", std::string(why)}}); }

absl::Status Exists(const StoredKind& kind, absl::string_view name, absl::string_view how = " already") {
  return MakeError(absl::StatusCode::kAlreadyExists, kind.exists,
                   absl::StrCat(kind.noun, " ", PrintableName(name), " exists", how));
}

absl::Status WriteError(const StoredKind& kind, absl::string_view name, int error) {
  const std::string adapter = absl::StrCat(kind.noun, " ", PrintableName(name));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kDiskFull,
                       absl::StrCat("no room on disk for ", adapter));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfFiles,
                       absl::StrCat(adapter, " cannot be written now"));
    case EROFS:
    case EACCES:
    case EPERM:
      return MakeError(absl::StatusCode::kFailedPrecondition, kind.folder_read_only,
                       absl::StrCat(adapter, " cannot be written: the server may not change its ", kind.folder_noun));
    case ENOENT:
      return MakeError(absl::StatusCode::kNotFound, kind.not_found, absl::StrCat("no ", adapter));
    case ENOTDIR:
      return BadName("has a part that is a file");
    case EISDIR:
    case ENOTEMPTY:
      return Exists(kind, name, " as a folder, which a file cannot replace");
    case ELOOP:
    case EXDEV:
      return BadName(absl::StrCat("leaves the ", kind.folder_noun, " by a link or a mount"));
    default:
      LogError("writing ", adapter, ": ", strerrordesc_np(error));
      return MakeError(absl::StatusCode::kInternal, kind.folder, absl::StrCat(adapter, " cannot be written"));
  }
}

absl::string_view Leaf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(slash == absl::string_view::npos ? 0 : slash + 1);
}

// nullopt if errno says why that cannot be told.
std::optional<bool> IsSameFile(int a, int b) {
  struct stat first, second;
  if (fstat(a, &first) != 0 || fstat(b, &second) != 0) {
    return std::nullopt;
  }
  return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool IsThere(int folder, const std::string& name) {
  struct stat info;
  return fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

// The folder that holds the name's last part. With `create`, folders that are missing are made.
absl::StatusOr<FileDescriptor> OpenFolderOf(const StoredKind& kind, const OpenedFolder& root, absl::string_view name,
                                            bool create) {
  FileDescriptor folder = root.OpenBelow(".", kFolderFlags);
  if (!folder.is_open()) {
    return WriteError(kind, name, errno);
  }
  std::vector<std::string> parts = absl::StrSplit(name, '/');
  parts.pop_back();
  std::string path;
  for (const std::string& part : parts) {
    absl::StrAppend(&path, path.empty() ? "" : "/", part);
    FileDescriptor next = root.OpenBelow(path, kFolderFlags);
    if (!next.is_open() && errno == ENOENT && create &&
        (mkdirat(folder.number(), part.c_str(), 0777) == 0 || errno == EEXIST)) {
      next = root.OpenBelow(path, kFolderFlags);
    }
    if (!next.is_open()) {
      return WriteError(kind, name, errno);
    }
    folder = std::move(next);
  }
  return folder;
}

// Whether the folder's entries stay as they are after a power cut; else errno says why they may not. File systems that
// cannot do that for folders answer EINVAL.
bool Sync(const FileDescriptor& folder) { return fsync(folder.number()) == 0 || errno == EINVAL; }

// The same for all folders of `path` before its last "/", and for the root: any of them may be new.
bool SyncFoldersOf(const OpenedFolder& root, const std::string& path) {
  for (size_t slash = path.rfind('/'); slash != std::string::npos; slash = path.rfind('/', slash - 1)) {
    const FileDescriptor folder = root.OpenBelow(path.substr(0, slash), kFolderFlags);
    if (!folder.is_open() || !Sync(folder)) {
      return false;
    }
  }
  const FileDescriptor folder = root.OpenBelow(".", kFolderFlags);
  return folder.is_open() && Sync(folder);
}

// `what` was done, but errno says why it may not last.
absl::Status Unconfirmed(const StoredKind& kind, absl::string_view name, absl::string_view what) {
  const int error = errno;
  return MakeError(absl::StatusCode::kInternal, kind.folder,
                   absl::StrCat(kind.noun, " ", PrintableName(name), what, " (", strerrordesc_np(error), ")"));
}

// Removes the file; whether it was there.
absl::StatusOr<bool> Remove(const StoredKind& kind, absl::string_view name, const FileDescriptor& folder,
                            const std::string& file) {
  if (unlinkat(folder.number(), file.c_str(), 0) == 0) {
    return true;
  }
  const bool absent = errno == ENOENT || errno == ENOTDIR || errno == EISDIR;
  return absent ? absl::StatusOr<bool>(false) : WriteError(kind, name, errno);
}

// The files of a folder of one adapter, in the order in which they go: what tells where its tensors are comes first,
// since without that nothing is served.
std::vector<std::string> FolderFiles(const StoredKind& kind, const FileDescriptor& folder) {
  std::vector<std::string> files;
  for (StoredKind::Head& head : kind.FolderHeads()) {
    files.push_back(std::move(head.file));
  }
  if (kind.shards) {
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(openat(folder.number(), ".", kFolderFlags)), closedir);
    while (const dirent* const entry = entries == nullptr ? nullptr : readdir(entries.get())) {
      absl::string_view stem = entry->d_name;
      if (absl::ConsumeSuffix(&stem, kAdapterExtension) && kind.IsFolderWeights(stem)) {
        files.emplace_back(entry->d_name);
      }
    }
  }
  files.emplace_back(kind.folder_config);
  return files;
}

// Removes the folders that `path` has before its last "/", as far as nothing is in them.
void RemoveEmptyFolders(const StoredKind& kind, const OpenedFolder& root, const std::string& path) {
  for (size_t slash = path.rfind('/'); slash != std::string::npos; slash = path.rfind('/', slash - 1)) {
    const absl::StatusOr<FileDescriptor> above = OpenFolderOf(kind, root, path.substr(0, slash), /*create=*/false);
    if (!above.ok() || unlinkat(above->number(), std::string(Leaf(path.substr(0, slash))).c_str(), AT_REMOVEDIR) != 0 ||
        slash == 0) {
      return;
    }
  }
}

}  // namespace

IncomingFile::~IncomingFile() {
  if (!hidden_name_.empty()) {
    unlinkat(folder_.number(), hidden_name_.c_str(), 0);
  }
}

absl::Status IncomingFile::Append(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file_.number(), bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) {
      return WriteError(kind_, adapter_, errno);
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
  return absl::OkStatus();
}

absl::Status IncomingFile::Finish() {
  if (fsync(file_.number()) != 0 || lseek(file_.number(), 0, SEEK_SET) != 0) {
    return WriteError(kind_, adapter_, errno);
  }
  return absl::OkStatus();
}

void AdapterWriter::RemoveStale() const {
  const absl::StatusOr<OpenedFolder> root = directory_.folder().Open();
  FileDescriptor folder = root.ok() ? root->OpenBelow(".", kFolderFlags) : FileDescriptor();
  if (!folder.is_open()) {
    return;
  }
  const int number = folder.number();
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(fdopendir(number), closedir);
  if (entries == nullptr) {
    return;
  }
  folder.Release();
  while (const dirent* const entry = readdir(entries.get())) {
    if (!absl::StartsWith(entry->d_name, kHiddenPrefix)) {
      continue;
    }
    const FileDescriptor file(openat(number, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    // Its writer keeps it locked as long as it lives.
    if (file.is_open() && flock(file.number(), LOCK_EX | LOCK_NB) == 0) {
      unlinkat(number, entry->d_name, 0);
      LogInfo("removed what an upload left behind when its server was killed");
    }
  }
}

absl::StatusOr<OpenedFolder> AdapterWriter::OpenRoot() const {
  absl::StatusOr<OpenedFolder> root = directory_.folder().Open();
  if (root.ok()) {
    return root;
  }
  if (absl::IsResourceExhausted(root.status())) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfFiles,
                     absl::StrCat("the ", kind().folder_noun, " cannot be opened now"));
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, kind().no_folder,
                   directory_.folder().path().empty()
                       ? absl::StrCat("the server has no folder of ", kind().noun, "s (", kind().flag, ")")
                       : absl::StrCat("the server's ", kind().folder_noun, " cannot be opened now"));
}

absl::Status AdapterWriter::CheckFree(absl::string_view name, bool replace) const {
  const absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    return BadName(normal.status().message());
  }
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder root, OpenRoot());
  ABSL_ASSIGN_OR_RETURN(const std::string path, directory_.PathOf(root, *normal));
  return CheckFree(root, *normal, path, replace);
}

absl::Status AdapterWriter::CheckFree(const OpenedFolder& root, absl::string_view name, const std::string& path,
                                      bool replace) const {
  if (kind().IsFolderWeights(Leaf(name))) {
    return BadName(absl::StrCat("ends in ", Leaf(name), ", which ", kind().layout, "s have inside"));
  }
  const absl::StatusOr<FileDescriptor> folder = OpenFolderOf(kind(), root, path, /*create=*/false);
  if (!folder.ok()) {
    return absl::IsNotFound(folder.status()) ? absl::OkStatus() : folder.status();  // folders are made later
  }
  const std::string leaf(Leaf(path));
  struct stat info;
  if (fstatat(folder->number(), absl::StrCat(leaf, kAdapterExtension).c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISDIR(info.st_mode)) {
      return Exists(kind(), name,
                    absl::StrCat(" as a folder called ", PrintableName(absl::StrCat(leaf, kAdapterExtension)),
                                 ", which a file cannot replace"));
    }
    if (!replace) {
      return Exists(kind(), name);
    }
  }
  for (const StoredKind::Head& head : kind().FolderHeads()) {
    if (IsThere(folder->number(), absl::StrCat(leaf, "/", head.file))) {
      return Exists(kind(), name,
                    replace ? absl::StrCat(" as a ", kind().layout, ", which a file cannot replace: delete it first")
                            : " already");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<IncomingFile> AdapterWriter::Create(absl::string_view name, uint64_t size) const {
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder root, OpenRoot());
  ABSL_ASSIGN_OR_RETURN(FileDescriptor folder, OpenFolderOf(kind(), root, "", /*create=*/false));
  std::random_device random;
  const std::string hidden =
      absl::StrCat(kHiddenPrefix, absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
  FileDescriptor file(openat(folder.number(), hidden.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.is_open()) {
    return WriteError(kind(), name, errno);
  }
  IncomingFile incoming(kind(), std::string(name), std::move(folder), hidden, std::move(file));
  flock(incoming.number(), LOCK_EX | LOCK_NB);  // see RemoveStale
  if (size > 0 && fallocate(incoming.number(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    return WriteError(kind(), name, errno);
  }
  return incoming;
}

absl::Status AdapterWriter::Commit(IncomingFile& file, absl::string_view name, bool replace) const {
  MutexLock lock(&mu_);
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder root, OpenRoot());
  const std::optional<bool> same_folder = IsSameFile(root.number(), file.folder_.number());
  if (!same_folder.has_value()) {
    return WriteError(kind(), name, errno);
  }
  if (!*same_folder) {
    return MakeError(absl::StatusCode::kAborted, kind().folder_replaced,
                     absl::StrCat("the ", kind().folder_noun, " was replaced while ", kind().noun, " ",
                                  PrintableName(name), " came: send it again"),
                     absl::Seconds(1));
  }
  ABSL_ASSIGN_OR_RETURN(const std::string path, directory_.PathOf(root, name));
  ABSL_RETURN_IF_ERROR(CheckFree(root, name, path, replace));
  absl::StatusOr<FileDescriptor> folder = OpenFolderOf(kind(), root, path, /*create=*/true);
  if (const absl::Status named = folder.ok() ? GiveName(file, *folder, path, name, replace) : folder.status();
      !named.ok()) {
    RemoveEmptyFolders(kind(), root, path);  // those that were made for it
    return named;
  }
  return SyncFoldersOf(root, path)
             ? absl::OkStatus()
             : Unconfirmed(kind(), name,
                           " is in its folder, but the disk does not confirm that it stays there after a power cut: "
                           "send it again, with replace");
}

absl::Status AdapterWriter::GiveName(IncomingFile& file, const FileDescriptor& folder, const std::string& path,
                                     absl::string_view name, bool replace) const {
  const std::string target = absl::StrCat(Leaf(path), kAdapterExtension);
  const char* const hidden = file.hidden_name_.c_str();
  // A link, unlike a rename, never replaces a file that has just come.
  const int failed = replace ? renameat(file.folder_.number(), hidden, folder.number(), target.c_str())
                             : linkat(file.folder_.number(), hidden, folder.number(), target.c_str(), 0);
  if (failed != 0) {
    return errno == EEXIST ? Exists(kind(), name) : WriteError(kind(), name, errno);
  }
  if (!replace) {
    unlinkat(file.folder_.number(), hidden, 0);
  }
  file.hidden_name_.clear();
  return absl::OkStatus();
}

absl::Status AdapterWriter::Delete(absl::string_view name) const {
  MutexLock lock(&mu_);
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder root, OpenRoot());
  ABSL_ASSIGN_OR_RETURN(const std::string path, directory_.PathOf(root, name));
  ABSL_ASSIGN_OR_RETURN(const FileDescriptor folder, OpenFolderOf(kind(), root, path, /*create=*/false));
  constexpr absl::string_view kMayComeBack =
      " is deleted, but the disk does not confirm it: after a power cut it may be back";
  bool was_folder = false;
  if (const FileDescriptor parts = root.OpenBelow(path, kFolderFlags); parts.is_open() && !kind().layout.empty()) {
    // One after the other, also on the disk.
    for (const std::string& file : FolderFiles(kind(), parts)) {
      ABSL_ASSIGN_OR_RETURN(const bool removed, Remove(kind(), name, parts, file));
      if (removed && !Sync(parts)) {
        return Unconfirmed(kind(), name, kMayComeBack);
      }
      was_folder = was_folder || removed;
    }
  }
  ABSL_ASSIGN_OR_RETURN(const bool was_file, Remove(kind(), name, folder, absl::StrCat(Leaf(path), kAdapterExtension)));
  if (was_file && kind().config_beside_file) {
    ABSL_RETURN_IF_ERROR(Remove(kind(), name, folder, absl::StrCat(Leaf(path), ".json")).status());
  }
  if (!was_folder && !was_file) {
    return WriteError(kind(), name, ENOENT);
  }
  if (!SyncFoldersOf(root, path)) {
    return Unconfirmed(kind(), name, kMayComeBack);
  }
  RemoveEmptyFolders(kind(), root, was_folder ? path + "/" : path);
  return absl::OkStatus();
}

}  // namespace hotlora
