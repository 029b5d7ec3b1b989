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
#include <random>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "src/adapters/key_suffix.h"
#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr absl::string_view kHiddenPrefix = ".hotlora-upload-";
constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;

absl::Status BadName(absl::string_view why) { return InvalidRequest({{"name", std::string(why)}}); }

absl::Status ErrnoStatus(absl::string_view name, int error) {
  const std::string adapter = absl::StrCat("adapter ", PrintableName(name));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                       absl::StrCat("no room on disk for ", adapter));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_FILES",
                       absl::StrCat(adapter, " cannot be written now"));
    case EROFS:
    case EACCES:
    case EPERM:
      return MakeError(absl::StatusCode::kFailedPrecondition, "ADAPTER_FOLDER_READ_ONLY",
                       absl::StrCat(adapter, " cannot be written: the server may not change its adapter folder"));
    case ENOENT:
      return MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", absl::StrCat("no ", adapter));
    case ENOTDIR:
      return BadName("has a part that is a file");
    case ELOOP:
    case EXDEV:
      return BadName("leaves the adapter folder by a link or a mount");
    default:
      LogError("writing ", adapter, ": ", strerrordesc_np(error));
      return MakeError(absl::StatusCode::kInternal, "ADAPTER_FOLDER", absl::StrCat(adapter, " cannot be written"));
  }
}

absl::Status Exists(absl::string_view name) {
  return MakeError(absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS",
                   absl::StrCat("adapter ", PrintableName(name), " exists already"));
}

absl::string_view Leaf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(slash == absl::string_view::npos ? 0 : slash + 1);
}

bool IsThere(int folder, const std::string& name) {
  struct stat info;
  return fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
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
      return ErrnoStatus(adapter_, errno);
    }
    bytes.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
  return absl::OkStatus();
}

absl::Status IncomingFile::Finish() {
  if (fsync(file_.number()) != 0 || lseek(file_.number(), 0, SEEK_SET) != 0) {
    return ErrnoStatus(adapter_, errno);
  }
  return absl::OkStatus();
}

void AdapterWriter::RemoveStale() const {
  FileDescriptor folder = directory_.OpenBelow(".", kFolderFlags);
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

absl::StatusOr<FileDescriptor> AdapterWriter::OpenFolderOf(absl::string_view name, bool create) const {
  FileDescriptor folder = directory_.OpenBelow(".", kFolderFlags);
  if (!folder.is_open()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, "NO_ADAPTER_FOLDER",
                     "the server has no folder of adapters (--adapters)");
  }
  std::vector<std::string> parts = absl::StrSplit(name, '/');
  parts.pop_back();
  std::string path;
  for (const std::string& part : parts) {
    absl::StrAppend(&path, path.empty() ? "" : "/", part);
    FileDescriptor next = directory_.OpenBelow(path, kFolderFlags);
    if (!next.is_open() && errno == ENOENT && create &&
        (mkdirat(folder.number(), part.c_str(), 0777) == 0 || errno == EEXIST)) {
      next = directory_.OpenBelow(path, kFolderFlags);
    }
    if (!next.is_open()) {
      return ErrnoStatus(name, errno);
    }
    folder = std::move(next);
  }
  return folder;
}

absl::Status AdapterWriter::CheckFree(absl::string_view name, bool replace) const {
  if (const absl::Status valid = ValidateAdapterName(name); !valid.ok()) {
    return BadName(valid.message());
  }
  if (Leaf(name) == kPeftWeights) {
    return BadName(absl::StrCat("ends in ", kPeftWeights, ", which PEFT folders have inside"));
  }
  const absl::StatusOr<FileDescriptor> folder = OpenFolderOf(name, /*create=*/false);
  if (!folder.ok()) {
    return absl::IsNotFound(folder.status()) ? absl::OkStatus() : folder.status();  // folders are made later
  }
  const std::string leaf(Leaf(name));
  if (IsThere(folder->number(), absl::StrCat(leaf, kAdapterExtension)) && !replace) {
    return Exists(name);
  }
  if (IsThere(folder->number(), absl::StrCat(leaf, "/", kPeftWeights, kAdapterExtension))) {
    return replace ? MakeError(absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS",
                               absl::StrCat("adapter ", PrintableName(name),
                                            " exists as a PEFT folder, which a file cannot replace: delete it first"))
                   : Exists(name);
  }
  return absl::OkStatus();
}

absl::StatusOr<IncomingFile> AdapterWriter::Create(absl::string_view name, uint64_t size) const {
  ABSL_ASSIGN_OR_RETURN(FileDescriptor folder, OpenFolderOf("", /*create=*/false));
  std::random_device random;
  const std::string hidden =
      absl::StrCat(kHiddenPrefix, absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
  FileDescriptor file(openat(folder.number(), hidden.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.is_open()) {
    return ErrnoStatus(name, errno);
  }
  IncomingFile incoming(std::string(name), std::move(folder), hidden, std::move(file));
  flock(incoming.number(), LOCK_EX | LOCK_NB);  // see RemoveStale
  if (size > 0 && fallocate(incoming.number(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size)) != 0 &&
      (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    return ErrnoStatus(name, errno);
  }
  return incoming;
}

absl::Status AdapterWriter::Place(IncomingFile& file, absl::string_view name, bool replace) const {
  ABSL_RETURN_IF_ERROR(CheckFree(name, replace));
  ABSL_ASSIGN_OR_RETURN(const FileDescriptor folder, OpenFolderOf(name, /*create=*/true));
  const std::string target = absl::StrCat(Leaf(name), kAdapterExtension);
  const char* const hidden = file.hidden_name_.c_str();
  // A link, unlike a rename, never takes the place of a file that has just come.
  const int placed = replace ? renameat(file.folder_.number(), hidden, folder.number(), target.c_str())
                             : linkat(file.folder_.number(), hidden, folder.number(), target.c_str(), 0);
  if (placed != 0) {
    return errno == EEXIST ? Exists(name) : ErrnoStatus(name, errno);
  }
  if (!replace) {
    unlinkat(file.folder_.number(), hidden, 0);
  }
  file.hidden_name_.clear();
  fsync(folder.number());
  return absl::OkStatus();
}

absl::Status AdapterWriter::Delete(absl::string_view name) const {
  ABSL_ASSIGN_OR_RETURN(const FileDescriptor folder, OpenFolderOf(name, /*create=*/false));
  const std::string leaf(Leaf(name));
  bool found = false;
  const auto remove = [&](int from, const std::string& file) {
    const bool removed = unlinkat(from, file.c_str(), 0) == 0;
    found = found || removed;
    return removed || errno == ENOENT || errno == ENOTDIR || errno == EISDIR;
  };
  // The tensors of a PEFT folder first: without them there is no adapter.
  const FileDescriptor peft = directory_.OpenBelow(std::string(name), kFolderFlags);
  if (peft.is_open() && !(remove(peft.number(), absl::StrCat(kPeftWeights, kAdapterExtension)) &&
                          (!found || remove(peft.number(), std::string(kPeftConfig))))) {
    return ErrnoStatus(name, errno);
  }
  if (found) {
    unlinkat(folder.number(), leaf.c_str(), AT_REMOVEDIR);  // only where it is empty
  }
  if (!remove(folder.number(), absl::StrCat(leaf, kAdapterExtension))) {
    return ErrnoStatus(name, errno);
  }
  if (!found) {
    return ErrnoStatus(name, ENOENT);
  }
  fsync(folder.number());
  return absl::OkStatus();
}

}  // namespace hotlora
