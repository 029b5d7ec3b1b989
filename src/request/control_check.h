#ifndef HOTLORA_SRC_REQUEST_CONTROL_CHECK_H_
#define HOTLORA_SRC_REQUEST_CONTROL_CHECK_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "src/request/image_job.h"
#include "src/request/image_request.h"
#include "src/request/violations.h"

namespace hotlora {

inline constexpr size_t kMaxControls = 4;
inline constexpr double kMaxControlScale = 4.0;

// Checks the controls of a request, all that can be known without their nets.
std::vector<ControlUse> CheckControls(const std::vector<ControlRef>& refs, Violations& violations);

// Checks their types once the nets are read: `types` of each control's net, 0 for a net of one kind. InvalidArgument
// (INVALID_REQUEST) names each type that is missing, not needed or not below the net's number.
absl::Status CheckControlTypes(const std::vector<ControlUse>& controls, absl::Span<const uint32_t> types);

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_CONTROL_CHECK_H_
