#include "server/field_names.h"

#include <string>
#include <utility>
#include <vector>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/request/validation.h"

namespace hotlora {

absl::Status WithFieldNames(const absl::Status& status, absl::Span<const FieldName> names) {
  ErrorDetails details = GetErrorDetails(status);
  if (details.reason != error_reason::kInvalidRequest || details.violations.empty()) {
    return status;
  }
  for (FieldViolation& violation : details.violations) {
    for (const FieldName& name : names) {
      if (violation.field == name.ours) {
        violation.field = std::string(name.theirs);
        break;
      }
    }
  }
  return InvalidRequest(std::move(details.violations));
}

}  // namespace hotlora
