#ifndef HOTLORA_SRC_REQUEST_VIOLATIONS_H_
#define HOTLORA_SRC_REQUEST_VIOLATIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#include "src/base/error_details.h"
#include "src/request/evaluation_range.h"
#include "src/request/validation.h"

namespace hotlora {

// Gathers what is wrong with a request, field by field.
class Violations {
 public:
  template <typename... Parts>
  void Add(absl::string_view field, const Parts&... parts) {
    violations_.push_back({std::string(field), absl::StrCat(parts...)});
  }

  uint32_t UintInRange(absl::string_view field, const std::optional<uint32_t>& value, uint32_t low, uint32_t high,
                       uint32_t fallback) {
    const uint32_t given = value.value_or(fallback);
    if (given < low || given > high) {
      Add(field, "is ", given, "; allowed are ", low, " to ", high);
    }
    return given;
  }

  double RealInRange(absl::string_view field, const std::optional<double>& value, double low, double high,
                     double fallback) {
    const double given = value.value_or(fallback);
    if (!(given >= low && given <= high)) {  // so that NaN is refused too
      Add(field, "is ", given, "; allowed are ", low, " to ", high);
    }
    return given;
  }

  EvaluationRange Range(absl::string_view start_field, const std::optional<double>& start, absl::string_view end_field,
                        const std::optional<double>& end) {
    const EvaluationRange range{RealInRange(start_field, start, 0, 1, 0), RealInRange(end_field, end, 0, 1, 1)};
    if (range.start >= range.end && range.start <= 1 && range.end >= 0) {
      Add(start_field, "is ", range.start, "; it must be below ", end_field, ", which is ", range.end);
    }
    return range;
  }

  void Text(absl::string_view field, absl::string_view text) {
    if (text.size() > kMaxPromptBytes) {
      Add(field, "has ", text.size(), " bytes; allowed are at most ", kMaxPromptBytes);
    }
  }

  absl::Status ToStatus() && {
    if (violations_.empty()) {
      return absl::OkStatus();
    }
    return InvalidRequest(std::move(violations_));
  }

 private:
  std::vector<FieldViolation> violations_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_VIOLATIONS_H_
