#include "src/adapters/adapter_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "src/adapter_format/adapter_metadata.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
// A client that pages reads one scan.
constexpr absl::Duration kPagesOfOneScan = absl::Seconds(2);
constexpr size_t kMaxLogged = 20;
constexpr int kLookFlags = O_PATH | O_CLOEXEC;

absl::Status NotFound(absl::string_view name, absl::string_view why = "") {
  return MakeError(absl::StatusCode::kNotFound, error_reason::kAdapterNotFound,
                   absl::StrCat("no adapter ", PrintableName(name), why));
}

absl::Status Unreadable(absl::string_view name, absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kAdapterInvalid,
                   absl::StrCat("adapter ", PrintableName(name), " ", why));
}

absl::Status OpenError(absl::string_view name, int error) {
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
      return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfFiles,
                       absl::StrCat("adapter ", PrintableName(name), " cannot be opened now"));
    case EACCES:
    case EPERM:
      return Unreadable(name, absl::StrCat("cannot be read: ", strerrordesc_np(error)));
    default:
      return UnreadableNow(absl::StrCat("adapter ", PrintableName(name)), strerrordesc_np(error));
  }
}

absl::StatusOr<std::string> ReadText(absl::string_view name, int descriptor, uint64_t size) {
  if (size > kMaxAdapterJsonBytes) {
    return Unreadable(name,
                      absl::StrCat("has a configuration of ", size, " bytes; allowed are ", kMaxAdapterJsonBytes));
  }
  std::string text(size, '\0');
  size_t reached = 0;
  while (reached < size) {
    const ssize_t got = read(descriptor, text.data() + reached, size - reached);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got < 0) {
      return OpenError(name, errno);
    }
    if (got == 0) {
      return Unreadable(name, "has a configuration that changed while it was read");
    }
    reached += static_cast<size_t>(got);
  }
  return text;
}

absl::StatusOr<FileDescriptor> OpenPart(const OpenedFolder& folder, absl::string_view name, const std::string& path,
                                        int flags, FileVersion& version) {
  FileDescriptor file = folder.OpenBelow(path, flags);
  if (!file.is_open()) {
    const int error = errno;
    return error == ENOENT && folder.Has(path) ? NotFound(name, ": it is a link to nothing") : OpenError(name, error);
  }
  struct stat info;
  if (fstat(file.number(), &info) != 0) {
    return OpenError(name, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return NotFound(name, ": it is not a regular file");
  }
  absl::StatusOr<FileVersion> found = FileVersion::Of(file.number());
  if (!found.ok()) {
    return OpenError(name, errno);
  }
  version = *found;
  return file;
}

// A PEFT folder.
absl::StatusOr<OpenedAdapter> OpenPeft(const OpenedFolder& folder, absl::string_view name, const std::string& path,
                                       int flags) {
  OpenedAdapter opened;
  absl::StatusOr<FileDescriptor> weights =
      OpenPart(folder, name, absl::StrCat(path, "/", kPeftWeights, kAdapterExtension), flags, opened.version.weights);
  FileVersion config_version;
  const absl::StatusOr<FileDescriptor> config =
      OpenPart(folder, name, absl::StrCat(path, "/", kPeftConfig), flags, config_version);
  if (!weights.ok()) {
    return absl::IsNotFound(weights.status()) && config.ok()
               ? Unreadable(name, "lacks adapter_model.safetensors beside its adapter_config.json")
               : weights.status();
  }
  if (!config.ok()) {
    return absl::IsNotFound(config.status()) ? Unreadable(name, "lacks adapter_config.json beside its tensors")
                                             : config.status();
  }
  opened.weights = *std::move(weights);
  opened.version.config = config_version;
  if ((flags & O_PATH) == 0) {
    ABSL_ASSIGN_OR_RETURN(opened.peft_config, ReadText(name, config->number(), config_version.size));
  }
  return opened;
}

// The adapter at that path, which has no extension.
absl::StatusOr<OpenedAdapter> OpenPath(const OpenedFolder& folder, absl::string_view name, const std::string& path,
                                       int flags) {
  OpenedAdapter opened;
  absl::StatusOr<FileDescriptor> file =
      OpenPart(folder, name, absl::StrCat(path, kAdapterExtension), flags, opened.version.weights);
  if (file.ok()) {
    opened.weights = *std::move(file);
    return opened;
  }
  absl::StatusOr<OpenedAdapter> peft = OpenPeft(folder, name, path, flags);
  // If there is no folder either, what was wrong with the file says more.
  return absl::IsNotFound(peft.status()) ? absl::StatusOr<OpenedAdapter>(file.status()) : std::move(peft);
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void LogPaths(absl::string_view what, const std::vector<std::string>& paths) {
  NameSample sample;
  for (const std::string& path : paths) {
    sample.AddPrintable(path);
  }
  if (!sample.empty()) {
    LogWarning(what, sample.ToString());
  }
}

absl::string_view Leaf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(slash == absl::string_view::npos ? 0 : slash + 1);
}

}  // namespace

absl::Status UnreadableNow(absl::string_view what, absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kFileUnreadable,
                   absl::StrCat(what, " cannot be read now: ", why), absl::Seconds(1));
}

absl::StatusOr<AdapterDirectory> AdapterDirectory::Open(const std::string& path, bool follow_links, bool use_openat2,
                                                        std::string what) {
  ABSL_ASSIGN_OR_RETURN(ServedFolder folder, ServedFolder::Find(std::move(what), path, follow_links, use_openat2));
  return AdapterDirectory(std::move(folder));
}

absl::StatusOr<OpenedFolder> AdapterDirectory::OpenFolder(absl::string_view name) const {
  absl::StatusOr<OpenedFolder> folder = folder_.Open();
  if (folder.ok() || folder_.path().empty()) {
    return folder.ok() ? std::move(folder) : NotFound(name);
  }
  if (absl::IsResourceExhausted(folder.status())) {
    return OpenError(name, EMFILE);
  }
  if (!absl::IsNotFound(folder.status())) {
    return UnreadableNow(absl::StrCat("adapter ", PrintableName(name)),
                         absl::StrCat("the ", folder_.what(), ": ", folder.status().message()));
  }
  return MakeError(absl::StatusCode::kNotFound, error_reason::kAdapterFolderMissing,
                   absl::StrCat("no adapter ", PrintableName(name), ": the ", folder_.what(), " cannot be opened now"));
}

// The last scan if it began since then, or if nothing has changed since; else a new one. Of callers at the same time
// one scans.
std::shared_ptr<const FolderScan> AdapterDirectory::Scan(const OpenedFolder& folder, absl::Time not_before) const {
  MutexLock lock(&last_->mu);
  // A scan that began in the future did so before the system's clock was set back.
  const bool began_since =
      last_->scan != nullptr && last_->scan->began() >= not_before && last_->scan->began() <= absl::Now();
  if (last_->scan == nullptr || (!began_since && !last_->scan->IsCurrent(folder))) {
    last_->scan = std::make_shared<const FolderScan>(folder, folder_.what());
    ++last_->count;
  }
  return last_->scan;
}

uint64_t AdapterDirectory::scans_for_test() const {
  MutexLock lock(&last_->mu);
  return last_->count;
}

absl::StatusOr<std::string> AdapterDirectory::PathOf(const OpenedFolder& folder, absl::string_view name) const {
  if (IsAscii(name)) {
    return std::string(name);  // the only form it has
  }
  const std::shared_ptr<const FolderScan> scan = Scan(folder, absl::Now());
  const auto entry = scan->entries().find(std::string(name));
  if (entry == scan->entries().end()) {
    return std::string(name);
  }
  if (!entry->second.fault.empty()) {
    return Unreadable(name, absl::StrCat("cannot be served: ", entry->second.fault));
  }
  return entry->second.path;
}

absl::StatusOr<OpenedAdapter> AdapterDirectory::OpenName(absl::string_view name, int flags) const {
  const absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    return NotFound(name, absl::StrCat(": the name ", normal.status().message()));
  }
  if (Leaf(*normal) == kPeftWeights) {
    return NotFound(name);
  }
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder folder, OpenFolder(name));
  ABSL_ASSIGN_OR_RETURN(const std::string path, PathOf(folder, *normal));
  return OpenPath(folder, *normal, path, flags);
}

absl::StatusOr<AdapterVersion> AdapterDirectory::Find(absl::string_view name) const {
  ABSL_ASSIGN_OR_RETURN(const OpenedAdapter opened, OpenName(name, kLookFlags));
  return opened.version;
}

absl::StatusOr<OpenedAdapter> AdapterDirectory::OpenAdapter(absl::string_view name) const {
  return OpenName(name, kReadFlags);
}

std::vector<ListedAdapter> AdapterDirectory::List(absl::string_view after, size_t limit) const {
  const absl::StatusOr<OpenedFolder> folder = folder_.Open();
  if (!folder.ok()) {
    return {};
  }
  const std::shared_ptr<const FolderScan> scan =
      Scan(*folder, after.empty() ? absl::Now() : absl::Now() - kPagesOfOneScan);
  std::vector<ListedAdapter> listed;
  for (auto entry = scan->entries().upper_bound(std::string(after));
       entry != scan->entries().end() && listed.size() < limit; ++entry) {
    const auto& [name, found] = *entry;
    if (!found.fault.empty()) {
      listed.push_back({name, Unreadable(name, absl::StrCat("cannot be served: ", found.fault))});
      continue;
    }
    const absl::StatusOr<OpenedAdapter> opened = OpenPath(*folder, name, found.path, kLookFlags);
    const bool there =
        opened.ok() || !absl::IsNotFound(opened.status()) || folder->Has(absl::StrCat(found.path, kAdapterExtension));
    if (there) {
      listed.push_back({name, opened.ok() ? absl::StatusOr<AdapterVersion>(opened->version) : opened.status()});
    }
  }
  return listed;
}

void AdapterDirectory::LogWhatIsNotServed() const {
  const absl::StatusOr<OpenedFolder> folder = folder_.Open();
  if (!folder.ok()) {
    return;
  }
  size_t failed = 0;
  for (const ListedAdapter& adapter : List("", SIZE_MAX)) {
    if (!adapter.version.ok() && ++failed <= kMaxLogged) {
      LogWarning(folder_.what(), ": ", adapter.version.status().message());
    }
  }
  if (failed > kMaxLogged) {
    LogWarning(folder_.what(), ": ", failed - kMaxLogged, " more cannot be served; --check and ListAdapters name them");
  }
  const std::shared_ptr<const FolderScan> scan = Scan(*folder, absl::Now() - kPagesOfOneScan);
  LogPaths(
      absl::StrCat(folder_.what(), ": .pt and .ckpt files are not read, because they can run code; convert them to ",
                   ".safetensors: "),
      scan->pickles());
  LogPaths(absl::StrCat(folder_.what(), ": these links lead to nothing: "), scan->dangling());
}

}  // namespace hotlora
