#include "server/field_names.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

// Takes the index out of "adapters[2].name"; 0 if there is none.
uint32_t TakeIndex(std::string& field) {
  const size_t open = field.find('['), close = field.find(']');
  uint32_t index = 0;
  if (open < close && close != std::string::npos &&
      absl::SimpleAtoi(absl::string_view(field).substr(open + 1, close - open - 1), &index)) {
    field.erase(open + 1, close - open - 1);
  }
  return index;
}

void Rename(FieldViolation& violation, absl::Span<const FieldName> names) {
  std::string field = violation.field;
  const uint32_t index = TakeIndex(field);
  for (const FieldName& name : names) {
    if (field == name.ours) {
      violation.field = std::string(name.theirs);
      if (name.in_their_words != nullptr) {
        violation.description = name.in_their_words(violation.description);
      }
      if (!name.part.empty()) {
        const std::string part = absl::StrReplaceAll(name.part, {{"#", absl::StrCat(index + 1)}});
        violation.description = absl::StrCat("(", part, ") ", violation.description);
      }
      return;
    }
  }
}

}  // namespace

absl::Status WithFieldNames(const absl::Status& status, absl::Span<const FieldName> names) {
  ErrorDetails details = GetErrorDetails(status);
  if (details.reason != error_reason::kInvalidRequest || details.violations.empty()) {
    return status;
  }
  for (FieldViolation& violation : details.violations) {
    Rename(violation, names);
  }
  return InvalidRequest(std::move(details.violations));
}

}  // namespace hotlora
