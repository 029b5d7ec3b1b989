#include "src/adapters/store_reader.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

// What the file reader says, in the words of the store.
absl::Status FileError(const StoredKind& kind, absl::string_view name, const absl::Status& status) {
  if (!absl::IsResourceExhausted(status) && !absl::IsDataLoss(status) && !absl::IsFailedPrecondition(status)) {
    return UnreadableNow(absl::StrCat(kind.noun, " ", PrintableName(name)), status.message());
  }
  const bool too_large = absl::IsResourceExhausted(status);
  return MakeError(too_large ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition,
                   too_large ? kind.budget : kind.invalid,
                   absl::StrCat(kind.noun, " ", PrintableName(name), ": ", status.message()));
}

}  // namespace

AdapterInfo ReadAdapter::HashedInfo() const {
  AdapterInfo hashed = info;
  hashed.content_sha256 = content_sha256();
  return hashed;
}

absl::Status NamedError(const StoredKind& kind, absl::string_view name, const absl::Status& status) {
  return MakeError(status.code(), absl::StrCat(kind.noun, " ", PrintableName(name), ": ", status.message()),
                   GetErrorDetails(status));
}

absl::StatusOr<ReadAdapter> StoreReader::Read(const std::string& name, AdapterVersion& version,
                                              AcquireReport& report) const {
  Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(Contents contents, ReadContents(name, version));
  report.read_seconds += stopwatch.Lap();
  absl::StatusOr<ReadAdapter> read = ParseNamed(name, std::move(contents));
  report.parse_seconds += stopwatch.Lap();
  return read;
}

absl::StatusOr<ReadAdapter> StoreReader::Check(const std::string& name, int descriptor) const {
  absl::StatusOr<SafetensorsFile> file = ReadFile(descriptor);
  if (!file.ok()) {
    return FileError(kind(), name, file.status());
  }
  return ParseNamed(name, {*std::move(file)});
}

absl::StatusOr<ReadAdapter> StoreReader::ParseNamed(const std::string& name, Contents contents) const {
  absl::StatusOr<ReadAdapter> read = Parse(std::move(contents));
  if (!read.ok()) {
    return NamedError(kind(), name, read.status());
  }
  read->info.name = name;
  read->info.tier = AdapterTier::kHost;
  read->info.block_bytes = read->staged.bytes;
  return read;
}

absl::StatusOr<SafetensorsFile> StoreReader::ReadFile(int descriptor) const {
  return SafetensorsFile::ReadDescriptor(descriptor, max_file_bytes(), max_header_bytes_,
                                         [this](uint64_t bytes) { return buffer_.Take(bytes); });
}

absl::StatusOr<SafetensorsFile> StoreReader::ReadFiles(const OpenedAdapter& opened) const {
  if (opened.shards.empty()) {
    return ReadFile(opened.weights.number());
  }
  std::vector<SafetensorsFile::Shard> shards;
  for (const OpenedShard& shard : opened.shards) {
    shards.push_back({shard.name, shard.file.number()});
  }
  return SafetensorsFile::ReadShards(shards, max_file_bytes(), max_header_bytes_,
                                     [this](uint64_t bytes) { return buffer_.Take(bytes); });
}

// The bytes of one version, untorn: what the name means after the reading is what was read.
absl::StatusOr<StoreReader::Contents> StoreReader::ReadContents(const std::string& name,
                                                                AdapterVersion& version) const {
  for (int attempt = 1;; ++attempt) {
    ABSL_ASSIGN_OR_RETURN(OpenedAdapter opened, directory_.OpenAdapter(name));
    version = opened.version;
    absl::StatusOr<SafetensorsFile> file = ReadFiles(opened);
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion now, directory_.Find(name));
    if (now == version) {
      if (!file.ok()) {
        return FileError(kind(), name, file.status());
      }
      return Contents{*std::move(file), std::move(opened.config), std::move(opened.more_config),
                      std::move(opened.config_name)};
    }
    if (attempt == kMaxReadAttempts) {
      return MakeError(absl::StatusCode::kFailedPrecondition, kind().invalid,
                       absl::StrCat(kind().noun, " ", PrintableName(name), " changes while it is read"));
    }
  }
}

}  // namespace hotlora
