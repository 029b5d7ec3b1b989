#ifndef HOTLORA_SRC_ADAPTERS_ENCODER_FIT_H_
#define HOTLORA_SRC_ADAPTERS_ENCODER_FIT_H_

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "src/adapters/adapter_info.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"

namespace hotlora {

// FailedPrecondition (IMAGE_ENCODER_MISMATCH) if the image encoder does not give what the image prompt takes. REQUIRES:
// both files were read.
inline absl::Status CheckEncoderFits(const AdapterInfo& prompt, const AdapterInfo& encoder) {
  const bool hidden = prompt.encoder.hidden_size > 0;
  const int64_t needed = hidden ? prompt.encoder.hidden_size : prompt.encoder.projection_dim;
  const int64_t given = hidden ? encoder.encoder.hidden_size : encoder.encoder.projection_dim;
  if (needed == given) {
    return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kImageEncoderMismatch,
                   absl::StrCat("the image encoder does not fit image prompt ", PrintableName(prompt.name), ": its ",
                                hidden ? "hidden_size is " : "projection_dim is ", given, ", ", needed, " is needed"));
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ENCODER_FIT_H_
