// The server's settings: any text as the file of --config, and behind it, each after a line "%", variables
// (HOTLORA_...=) and flags.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

#include "server/flag_table.h"
#include "server/flags.h"

namespace {

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

// A file without a place on the disk that has this text.
std::string FileOf(absl::string_view text) {
  static const int file = memfd_create("settings", 0);
  Check(ftruncate(file, 0) == 0);
  Check(pwrite(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return absl::StrCat("/proc/self/fd/", file);
}

// An error of the file's text alone names the line, or the key that is wrong. What needs two settings names flags.
void CheckFileError(absl::string_view message, absl::string_view path) {
  if (!absl::ConsumePrefix(&message, absl::StrCat("--config ", path))) {
    Check(absl::StartsWith(message, "--"));
    return;
  }
  const bool names_line = absl::StartsWith(message, " line ");
  const auto& flags = hotlora::FlagTable();
  const bool names_key = std::any_of(flags.begin(), flags.end(), [&](const hotlora::FlagSpec& flag) {
    return absl::StartsWith(message, absl::StrCat(": ", absl::StrReplaceAll(flag.name, {{"-", "_"}}), " "));
  });
  Check(names_line || names_key || absl::StartsWith(message, " has "));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const std::vector<absl::string_view> parts = absl::StrSplit(input, "\n%\n");
  const std::string path = FileOf(parts[0]);
  const auto from_file = hotlora::ParseFlags({"--config", path}, {});
  if (from_file.ok()) {
    Check(!from_file->model.empty() && from_file->max_batch >= 1);
  } else {
    Check(from_file.status().code() == absl::StatusCode::kInvalidArgument);
    CheckFileError(from_file.status().message(), path);
  }
  if (parts.size() == 1) {
    return 0;
  }
  std::vector<std::string> arguments = {"--config", path};
  std::map<std::string, std::string> environment;
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(parts[i], absl::MaxSplits('=', 1));
    if (absl::StartsWith(pair.first, "HOTLORA_")) {
      environment.insert(pair);
    } else {
      arguments.emplace_back(parts[i]);
    }
  }
  const auto from_all = hotlora::ParseFlags(arguments, environment);
  Check(from_all.ok() || !from_all.status().message().empty());
  return 0;
}
