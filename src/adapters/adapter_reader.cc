#include "src/adapters/adapter_reader.h"

#include <memory>
#include <optional>
#include <string>

#include "src/base/status_macros.h"

namespace hotlora {
namespace {

AdapterInfo InfoOf(const ParsedAdapter& parsed) {
  AdapterInfo info;
  info.format = parsed.format;
  info.rank_max = parsed.rank_max;
  info.bytes = parsed.file.file_bytes();
  info.targets = parsed.targets;
  info.matched_modules = parsed.matched_modules;
  info.unmatched_keys = parsed.unmatched_keys;
  info.notes = parsed.notes;
  info.metadata = parsed.metadata;
  return info;
}

}  // namespace

absl::StatusOr<ReadAdapter> AdapterReader::Parse(Contents contents) const {
  AdapterFileOptions options;
  options.allow_unmatched_keys = allow_unmatched_keys_;
  options.peft_config = contents.config;
  ABSL_ASSIGN_OR_RETURN(ParsedAdapter parsed_file, ParseAdapter(std::move(contents.file), keys_, modules_, options));
  const auto parsed = std::make_shared<const ParsedAdapter>(std::move(parsed_file));
  ReadAdapter read;
  read.info = InfoOf(*parsed);
  read.file = parsed;
  read.content_sha256 = [parsed, config = std::move(contents.config)] { return ContentHash(parsed->file, config); };
  ABSL_ASSIGN_OR_RETURN(read.staged, memory_.Stage(*parsed));
  return read;
}

}  // namespace hotlora
