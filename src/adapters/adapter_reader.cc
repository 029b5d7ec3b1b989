#include "src/adapters/adapter_reader.h"

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

// What the file reader says, in the words of the adapter store.
absl::Status FileError(absl::string_view name, const absl::Status& status) {
  if (!absl::IsResourceExhausted(status) && !absl::IsDataLoss(status) && !absl::IsFailedPrecondition(status)) {
    return UnreadableNow(absl::StrCat("adapter ", PrintableName(name)), status.message());
  }
  const bool too_large = absl::IsResourceExhausted(status);
  return MakeError(too_large ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kFailedPrecondition,
                   too_large ? error_reason::kAdapterBudget : error_reason::kAdapterInvalid,
                   absl::StrCat("adapter ", PrintableName(name), ": ", status.message()));
}

AdapterInfo InfoOf(const std::string& name, const ParsedAdapter& parsed) {
  AdapterInfo info;
  info.name = name;
  info.format = parsed.format;
  info.rank_max = parsed.rank_max;
  info.bytes = parsed.file.file_bytes();
  info.tier = AdapterTier::kHost;
  info.targets = parsed.targets;
  info.matched_modules = parsed.matched_modules;
  info.unmatched_keys = parsed.unmatched_keys;
  info.notes = parsed.notes;
  info.metadata = parsed.metadata;
  return info;
}

}  // namespace

AdapterInfo ReadAdapter::HashedInfo() const {
  AdapterInfo hashed = info;
  hashed.content_sha256 = ContentHash(parsed->file, peft_config);
  return hashed;
}

absl::Status NamedError(absl::string_view name, const absl::Status& status) {
  return MakeError(status.code(), absl::StrCat("adapter ", PrintableName(name), ": ", status.message()),
                   GetErrorDetails(status));
}

absl::StatusOr<ReadAdapter> AdapterReader::Read(const std::string& name, AdapterVersion& version,
                                                AcquireReport& report) const {
  Stopwatch stopwatch;
  ABSL_ASSIGN_OR_RETURN(Contents contents, ReadContents(name, version));
  report.read_seconds += stopwatch.Lap();
  absl::StatusOr<ReadAdapter> read = Parse(name, std::move(contents));
  report.parse_seconds += stopwatch.Lap();
  return read;
}

absl::StatusOr<ReadAdapter> AdapterReader::Check(const std::string& name, int descriptor) const {
  absl::StatusOr<SafetensorsFile> file = ReadFile(descriptor);
  if (!file.ok()) {
    return FileError(name, file.status());
  }
  return Parse(name, {*std::move(file), std::nullopt});
}

absl::StatusOr<SafetensorsFile> AdapterReader::ReadFile(int descriptor) const {
  return SafetensorsFile::ReadDescriptor(descriptor, max_file_bytes(), kMaxAdapterHeaderBytes,
                                         [this](uint64_t bytes) { return buffer_.Take(bytes); });
}

// The bytes of one version, untorn: what the name means after the reading is what was read.
absl::StatusOr<AdapterReader::Contents> AdapterReader::ReadContents(const std::string& name,
                                                                    AdapterVersion& version) const {
  for (int attempt = 1;; ++attempt) {
    ABSL_ASSIGN_OR_RETURN(OpenedAdapter opened, directory_.OpenAdapter(name));
    version = opened.version;
    absl::StatusOr<SafetensorsFile> file = ReadFile(opened.weights.number());
    ABSL_ASSIGN_OR_RETURN(const AdapterVersion now, directory_.Find(name));
    if (now == version) {
      if (!file.ok()) {
        return FileError(name, file.status());
      }
      return Contents{*std::move(file), std::move(opened.peft_config)};
    }
    if (attempt == kMaxReadAttempts) {
      return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kAdapterInvalid,
                       absl::StrCat("adapter ", PrintableName(name), " changes while it is read"));
    }
  }
}

absl::StatusOr<ReadAdapter> AdapterReader::Parse(const std::string& name, Contents contents) const {
  AdapterFileOptions options;
  options.allow_unmatched_keys = allow_unmatched_keys_;
  options.peft_config = contents.peft_config;
  absl::StatusOr<ParsedAdapter> parsed = ParseAdapter(std::move(contents.file), keys_, modules_, options);
  if (!parsed.ok()) {
    return NamedError(name, parsed.status());
  }
  ReadAdapter read;
  read.info = InfoOf(name, *parsed);
  read.peft_config = std::move(contents.peft_config);
  read.parsed = std::make_unique<const ParsedAdapter>(*std::move(parsed));
  ABSL_ASSIGN_OR_RETURN(read.staged, memory_.Stage(*read.parsed));
  read.info.block_bytes = read.staged.bytes;
  return read;
}

}  // namespace hotlora
