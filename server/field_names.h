#ifndef HOTLORA_SERVER_FIELD_NAMES_H_
#define HOTLORA_SERVER_FIELD_NAMES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace hotlora {

// A field of ImageRequest, and what the callers of another API call it.
struct FieldName {
  absl::string_view ours;  // "adapters[].name": of each adapter
  absl::string_view theirs;
  absl::string_view part =
      {};  // which part of their field, if it says more than ours; "#": the place in our list, from 1
  std::string (*in_their_words)(absl::string_view description) = nullptr;  // nullptr: what we say is clear to them too
};

// `status`; if it lists bad fields (INVALID_REQUEST), with those of `names` under the callers' names, in the message
// too.
absl::Status WithFieldNames(const absl::Status& status, absl::Span<const FieldName> names);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_FIELD_NAMES_H_
