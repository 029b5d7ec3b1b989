#ifndef HOTLORA_SRC_WEIGHTS_MODEL_UNSUPPORTED_H_
#define HOTLORA_SRC_WEIGHTS_MODEL_UNSUPPORTED_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {

// FailedPrecondition (MODEL_UNSUPPORTED): the files of a model, or of a network beside it, are sound, but cannot be
// used.
inline absl::Status ModelUnsupported(absl::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kModelUnsupported, why);
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_MODEL_UNSUPPORTED_H_
