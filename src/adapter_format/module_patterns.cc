#include "src/adapter_format/module_patterns.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "re2/re2.h"
#include "src/base/printable.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr int64_t kMaxExpressionMemory = 1 << 18;

bool IsName(absl::string_view pattern) {
  return std::all_of(pattern.begin(), pattern.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.'; });
}

}  // namespace

absl::Status PatternBudget::TakePattern(size_t bytes) {
  if (bytes > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a pattern of ", bytes, " bytes; allowed are ", kMaxPatternBytes));
  }
  if (++patterns_ > kMaxPatterns) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxPatterns, " patterns"));
  }
  return absl::OkStatus();
}

absl::Status PatternBudget::TakeExpression(int program_size) {
  if (++expressions_ > kMaxExpressions) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMaxExpressions, " patterns that are not names of modules"));
  }
  program_size_ += program_size;
  if (program_size_ > kMaxProgramSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expressions of more than ", kMaxProgramSize, " instructions together"));
  }
  return absl::OkStatus();
}

absl::Status ModulePatterns::Add(absl::string_view pattern, double value, PatternBudget& budget) {
  ABSL_RETURN_IF_ERROR(budget.TakePattern(pattern.size()));
  absl::string_view name = pattern;
  const bool whole_path = absl::ConsumePrefix(&name, "^");
  if (IsName(name)) {
    patterns_.push_back({std::string(name), whole_path, nullptr, value});
    return absl::OkStatus();
  }
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(kMaxExpressionMemory);
  auto expression = std::make_shared<RE2>(absl::StrCat("(?:.*\\.)?(?:", pattern, ")"), options);
  if (!expression->ok()) {
    return absl::InvalidArgumentError(absl::StrCat("pattern ", PrintableName(pattern), " is not a regular expression"));
  }
  ABSL_RETURN_IF_ERROR(budget.TakeExpression(expression->ProgramSize()));
  patterns_.push_back({"", false, std::move(expression), value});
  return absl::OkStatus();
}

bool ModulePatterns::Matches(const Pattern& pattern, absl::string_view path) {
  if (pattern.expression != nullptr) {
    return RE2::FullMatch(re2::StringPiece(path.data(), path.size()), *pattern.expression);
  }
  const size_t size = pattern.name.size();
  if (size > path.size() || (size < path.size() && (pattern.whole_path || path[path.size() - size - 1] != '.'))) {
    return false;
  }
  return std::equal(pattern.name.begin(), pattern.name.end(), path.end() - size,
                    [](char wanted, char found) { return wanted == '.' || wanted == found; });
}

std::optional<double> ModulePatterns::FirstMatch(absl::string_view path) const {
  for (const Pattern& pattern : patterns_) {
    if (Matches(pattern, path)) {
      return pattern.value;
    }
  }
  return std::nullopt;
}

}  // namespace hotlora
