#ifndef HOTLORA_SRC_ADAPTER_FORMAT_MODULE_PATTERNS_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_MODULE_PATTERNS_H_

// PEFT's rank_pattern and alpha_pattern: numbers for the modules whose paths a pattern matches. No LibTorch here.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace re2 {
class RE2;
}  // namespace re2

namespace hotlora {

// What all pattern tables of one file may take together. Most patterns are names of modules, which are compared as they
// are; the others are regular expressions, whose time to match is proportional to the size of their programs. The
// limits hold all matches of a file against an SDXL's modules to about a second.
class PatternBudget {
 public:
  static constexpr int kMaxPatterns = 4096;
  static constexpr int kMaxPatternBytes = 512;
  static constexpr int kMaxExpressions = 64;
  static constexpr int kMaxProgramSize = 4096;  // instructions of RE2, of all expressions together

  // InvalidArgument, with the limit, if the next pattern is beyond it.
  absl::Status TakePattern(size_t bytes);
  absl::Status TakeExpression(int program_size);

 private:
  int patterns_ = 0, expressions_ = 0, program_size_ = 0;
};

// One table, in the order of the file.
//
// Source   PEFT utils/other.py (get_pattern_key): re.match(r"(.*\.)?(PATTERN)$", path), the first that matches
// Threads  immutable after the last Add, thread-safe
class ModulePatterns {
 public:
  // InvalidArgument if the pattern is not a regular expression, or is beyond the budget.
  absl::Status Add(absl::string_view pattern, double value, PatternBudget& budget);

  // The value of the first pattern that matches `path`.
  std::optional<double> FirstMatch(absl::string_view path) const;

 private:
  struct Pattern {
    std::string name;                            // without "^"; "." stands for any character
    bool whole_path;                             // of a name that begins with "^"
    std::shared_ptr<const re2::RE2> expression;  // null for a name
    double value;
  };
  static bool Matches(const Pattern& pattern, absl::string_view path);

  std::vector<Pattern> patterns_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_MODULE_PATTERNS_H_
