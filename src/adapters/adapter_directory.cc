#include "src/adapters/adapter_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include <nlohmann/json.hpp>

#include "src/adapter_format/adapter_metadata.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/json_text.h"
#include "src/base/logging.h"
#include "src/base/mutex.h"
#include "src/base/printable.h"
#include "src/base/resource_name.h"
#include "src/base/status_macros.h"
#include "src/weights/weight_index.h"

namespace hotlora {
namespace {

// O_NONBLOCK: opening a FIFO must not wait for a writer.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
// A client that pages reads one scan.
constexpr absl::Duration kPagesOfOneScan = absl::Seconds(2);
constexpr size_t kMaxLogged = 20;
constexpr size_t kMaxShards = 64;
constexpr int kLookFlags = O_PATH | O_CLOEXEC;

absl::Status NotFound(const StoredKind& kind, absl::string_view name, absl::string_view why = "") {
  return MakeError(absl::StatusCode::kNotFound, kind.not_found,
                   absl::StrCat("no ", kind.noun, " ", PrintableName(name), why));
}

absl::Status Unreadable(const StoredKind& kind, absl::string_view name, absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, kind.invalid,
                   absl::StrCat(kind.noun, " ", PrintableName(name), " ", why));
}

absl::Status OpenError(const StoredKind& kind, absl::string_view name, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
      return NotFound(kind, name);
    case ELOOP:
    case EXDEV:
      return NotFound(kind, name, absl::StrCat(": it is a link that leaves the ", kind.folder_noun));
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfFiles,
                       absl::StrCat(kind.noun, " ", PrintableName(name), " cannot be opened now"));
    case EACCES:
    case EPERM:
      return Unreadable(kind, name, absl::StrCat("cannot be read: ", strerrordesc_np(error)));
    default:
      return UnreadableNow(absl::StrCat(kind.noun, " ", PrintableName(name)), strerrordesc_np(error));
  }
}

absl::string_view Leaf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(slash == absl::string_view::npos ? 0 : slash + 1);
}

absl::StatusOr<std::string> ReadText(const StoredKind& kind, absl::string_view name, int descriptor, uint64_t size) {
  if (size > kMaxAdapterJsonBytes) {
    return Unreadable(kind, name,
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
      return OpenError(kind, name, errno);
    }
    if (got == 0) {
      return Unreadable(kind, name, "has a configuration that changed while it was read");
    }
    reached += static_cast<size_t>(got);
  }
  return text;
}

absl::StatusOr<FileDescriptor> OpenPart(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                                        const std::string& path, int flags, FileVersion& version) {
  FileDescriptor file = folder.OpenBelow(path, flags);
  if (!file.is_open()) {
    const int error = errno;
    return error == ENOENT && folder.Has(path) ? NotFound(kind, name, ": it is a link to nothing")
                                               : OpenError(kind, name, error);
  }
  struct stat info;
  if (fstat(file.number(), &info) != 0) {
    return OpenError(kind, name, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return NotFound(kind, name, ": it is not a regular file");
  }
  absl::StatusOr<FileVersion> found = FileVersion::Of(file.number());
  if (!found.ok()) {
    return OpenError(kind, name, errno);
  }
  version = *found;
  return file;
}

// A configuration's file, whose text is read unless `flags` only look. NotFound if there is none.
absl::Status OpenConfig(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                        const std::string& path, int flags, std::optional<FileVersion>& version,
                        std::optional<std::string>& text) {
  FileVersion found;
  ABSL_ASSIGN_OR_RETURN(const FileDescriptor config, OpenPart(kind, folder, name, path, flags, found));
  version = found;
  if ((flags & O_PATH) == 0) {
    ABSL_ASSIGN_OR_RETURN(text, ReadText(kind, name, config.number(), found.size));
  }
  return absl::OkStatus();
}

// The shards that the folder's index, the file `head`, lists. `path` is empty or ends in "/". NotFound if there is no
// such index.
absl::Status OpenShards(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                        const std::string& path, const std::string& head, int flags, OpenedAdapter& opened) {
  ABSL_ASSIGN_OR_RETURN(opened.weights,
                        OpenPart(kind, folder, name, absl::StrCat(path, head), kReadFlags, opened.version.weights));
  ABSL_ASSIGN_OR_RETURN(const std::string text,
                        ReadText(kind, name, opened.weights.number(), opened.version.weights.size));
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text);
  if (!json.ok()) {
    return Unreadable(kind, name, absl::StrCat("has ", head, ", which ", json.status().message()));
  }
  const absl::StatusOr<WeightIndex> index = ParseWeightIndex(*json);
  if (!index.ok()) {
    return Unreadable(kind, name, absl::StrCat("has ", head, ", whose ", index.status().message()));
  }
  if (index->shards.size() > kMaxShards) {
    return Unreadable(
        kind, name,
        absl::StrCat("has ", head, ", which names ", index->shards.size(), " files; allowed are ", kMaxShards));
  }
  for (const std::string& shard : index->shards) {
    if (!kind.IsFolderWeights(absl::StripSuffix(shard, kAdapterExtension))) {
      return Unreadable(kind, name,
                        absl::StrCat("has ", head, ", which names ", PrintableName(shard), ", must be ",
                                     kind.folder_weights.front(), "-N-of-M", kAdapterExtension));
    }
    absl::StatusOr<FileDescriptor> file =
        OpenPart(kind, folder, name, absl::StrCat(path, shard), flags, opened.version.shards.emplace_back());
    if (!file.ok()) {
      return absl::IsNotFound(file.status())
                 ? Unreadable(kind, name, absl::StrCat("lacks ", PrintableName(shard), ", which ", head, " names"))
                 : file.status();
    }
    opened.shards.push_back({shard, *std::move(file)});
  }
  return absl::OkStatus();
}

// One that need not be there.
absl::Status OpenOptionalConfig(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                                const std::string& path, int flags, std::optional<FileVersion>& version,
                                std::optional<std::string>& text) {
  const absl::Status config = OpenConfig(kind, folder, name, path, flags, version, text);
  return absl::IsNotFound(config) ? absl::OkStatus() : config;
}

// A folder of tensors and configuration; `path` is empty or ends in "/".
absl::StatusOr<OpenedAdapter> OpenParts(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                                        const std::string& path, int flags) {
  OpenedAdapter opened;
  absl::Status weights = NotFound(kind, name);
  for (const auto& [head, is_index] : kind.FolderHeads()) {
    if (!absl::IsNotFound(weights)) {
      break;
    }
    if (is_index) {
      weights = OpenShards(kind, folder, name, path, head, flags, opened);
      continue;
    }
    absl::StatusOr<FileDescriptor> file =
        OpenPart(kind, folder, name, absl::StrCat(path, head), flags, opened.version.weights);
    weights = file.status();
    if (file.ok()) {
      opened.weights = *std::move(file);
    }
  }
  const absl::Status config = OpenConfig(kind, folder, name, absl::StrCat(path, kind.folder_config), flags,
                                         opened.version.config, opened.config);
  opened.config_name = std::string(kind.folder_config);
  if (!weights.ok()) {
    return absl::IsNotFound(weights) && config.ok()
               ? Unreadable(kind, name,
                            absl::StrCat("lacks ", kind.folder_weights.front(), kAdapterExtension, " beside its ",
                                         kind.folder_config))
               : weights;
  }
  if (!config.ok()) {
    return absl::IsNotFound(config)
               ? Unreadable(kind, name, absl::StrCat("lacks ", kind.folder_config, " beside its tensors"))
               : config;
  }
  if (!kind.more_config.empty()) {
    ABSL_RETURN_IF_ERROR(OpenOptionalConfig(kind, folder, name, absl::StrCat(path, kind.more_config), flags,
                                            opened.version.more_config, opened.more_config));
  }
  return opened;
}

// The adapter at that path, which has no extension.
absl::StatusOr<OpenedAdapter> OpenPath(const StoredKind& kind, const OpenedFolder& folder, absl::string_view name,
                                       const std::string& path, int flags) {
  OpenedAdapter opened;
  absl::StatusOr<FileDescriptor> file =
      OpenPart(kind, folder, name, absl::StrCat(path, kAdapterExtension), flags, opened.version.weights);
  if (file.ok()) {
    opened.weights = *std::move(file);
    if (kind.config_beside_file) {
      ABSL_RETURN_IF_ERROR(OpenOptionalConfig(kind, folder, name, absl::StrCat(path, ".json"), flags,
                                              opened.version.config, opened.config));
      opened.config_name = absl::StrCat(Leaf(path), ".json");
    }
    return opened;
  }
  if (kind.folder_weights.empty()) {
    return file.status();
  }
  absl::StatusOr<OpenedAdapter> parts = OpenParts(kind, folder, name, absl::StrCat(path, "/"), flags);
  // If there is no folder either, what was wrong with the file says more.
  return absl::IsNotFound(parts.status()) ? absl::StatusOr<OpenedAdapter>(file.status()) : std::move(parts);
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

}  // namespace

absl::Status UnreadableNow(absl::string_view what, absl::string_view why) {
  return MakeError(absl::StatusCode::kUnavailable, error_reason::kFileUnreadable,
                   absl::StrCat(what, " cannot be read now: ", why), absl::Seconds(1));
}

absl::StatusOr<AdapterDirectory> AdapterDirectory::Open(const std::string& path, bool follow_links, bool use_openat2,
                                                        const StoredKind& kind) {
  ABSL_ASSIGN_OR_RETURN(ServedFolder folder, ServedFolder::Find(kind, path, follow_links, use_openat2));
  return AdapterDirectory(std::move(folder));
}

absl::StatusOr<OpenedFolder> AdapterDirectory::OpenFolder(absl::string_view name) const {
  absl::StatusOr<OpenedFolder> folder = folder_.Open();
  if (folder.ok() || folder_.path().empty()) {
    return folder.ok() ? std::move(folder) : NotFound(kind(), name);
  }
  if (absl::IsResourceExhausted(folder.status())) {
    return OpenError(kind(), name, EMFILE);
  }
  if (!absl::IsNotFound(folder.status())) {
    return UnreadableNow(absl::StrCat(kind().noun, " ", PrintableName(name)),
                         absl::StrCat("the ", kind().folder_noun, ": ", folder.status().message()));
  }
  return MakeError(absl::StatusCode::kNotFound, kind().folder_missing,
                   absl::StrCat("no ", kind().noun, " ", PrintableName(name), ": the ", kind().folder_noun,
                                " cannot be opened now"));
}

// The last scan if it began since then, or if nothing has changed since; else a new one. Of callers at the same time
// one scans.
std::shared_ptr<const FolderScan> AdapterDirectory::Scan(const OpenedFolder& folder, absl::Time not_before) const {
  MutexLock lock(&last_->mu);
  // A scan that began in the future did so before the system's clock was set back.
  const bool began_since =
      last_->scan != nullptr && last_->scan->began() >= not_before && last_->scan->began() <= absl::Now();
  if (last_->scan == nullptr || (!began_since && !last_->scan->IsCurrent(folder))) {
    last_->scan = std::make_shared<const FolderScan>(folder, kind());
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
    return Unreadable(kind(), name, absl::StrCat("cannot be served: ", entry->second.fault));
  }
  return entry->second.path;
}

absl::StatusOr<OpenedAdapter> AdapterDirectory::OpenName(absl::string_view name, int flags) const {
  if (kind().is_folder) {
    ABSL_ASSIGN_OR_RETURN(const OpenedFolder folder, OpenFolder(name));
    return OpenParts(kind(), folder, name, "", flags);
  }
  const absl::StatusOr<std::string> normal = NormalizeName(name);
  if (!normal.ok()) {
    return NotFound(kind(), name, absl::StrCat(": the name ", normal.status().message()));
  }
  if (kind().IsFolderWeights(Leaf(*normal))) {
    return NotFound(kind(), name);
  }
  ABSL_ASSIGN_OR_RETURN(const OpenedFolder folder, OpenFolder(name));
  ABSL_ASSIGN_OR_RETURN(const std::string path, PathOf(folder, *normal));
  return OpenPath(kind(), folder, *normal, path, flags);
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
  if (kind().is_folder) {
    const absl::StatusOr<AdapterVersion> version = Find(kImageEncoderName);
    return after.empty() && limit > 0 ? std::vector<ListedAdapter>{{std::string(kImageEncoderName), version}}
                                      : std::vector<ListedAdapter>();
  }
  const std::shared_ptr<const FolderScan> scan =
      Scan(*folder, after.empty() ? absl::Now() : absl::Now() - kPagesOfOneScan);
  std::vector<ListedAdapter> listed;
  for (auto entry = scan->entries().upper_bound(std::string(after));
       entry != scan->entries().end() && listed.size() < limit; ++entry) {
    const auto& [name, found] = *entry;
    if (!found.fault.empty()) {
      listed.push_back({name, Unreadable(kind(), name, absl::StrCat("cannot be served: ", found.fault))});
      continue;
    }
    const absl::StatusOr<OpenedAdapter> opened = OpenPath(kind(), *folder, name, found.path, kLookFlags);
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
      LogWarning(kind().folder_noun, ": ", adapter.version.status().message());
    }
  }
  if (failed > kMaxLogged) {
    LogWarning(kind().folder_noun, ": ", failed - kMaxLogged,
               " more cannot be served; --check and a list of them say which");
  }
  const std::shared_ptr<const FolderScan> scan = Scan(*folder, absl::Now() - kPagesOfOneScan);
  LogPaths(
      absl::StrCat(kind().folder_noun,
                   ": .pt and .ckpt files are not read, because they can run code; convert them to ", ".safetensors: "),
      scan->pickles());
  LogPaths(absl::StrCat(kind().folder_noun, ": these links lead to nothing: "), scan->dangling());
}

}  // namespace hotlora
