#ifndef HOTLORA_SRC_BASE_STATUS_MACROS_H_
#define HOTLORA_SRC_BASE_STATUS_MACROS_H_

// Early return on absl::Status, with the names and meaning of newer Abseil's absl/status/status_macros.h, which Debian
// 12's Abseil lacks: delete this file when it arrives.

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function if `expr` (absl::Status) is not OK.
#define ABSL_RETURN_IF_ERROR(expr)                                    \
  do {                                                                \
    if (absl::Status hotlora_status = (expr); !hotlora_status.ok()) { \
      return hotlora_status;                                          \
    }                                                                 \
  } while (false)

#define HOTLORA_CONCAT_INNER(a, b) a##b
#define HOTLORA_CONCAT(a, b) HOTLORA_CONCAT_INNER(a, b)

// ABSL_ASSIGN_OR_RETURN(auto value, Function()): assigns, or returns the error.
#define ABSL_ASSIGN_OR_RETURN(lhs, expr) HOTLORA_ASSIGN_OR_RETURN(HOTLORA_CONCAT(hotlora_result_, __LINE__), lhs, expr)
#define HOTLORA_ASSIGN_OR_RETURN(result, lhs, expr) \
  auto result = (expr);                             \
  if (!result.ok()) {                               \
    return std::move(result).status();              \
  }                                                 \
  lhs = *std::move(result)

#endif  // HOTLORA_SRC_BASE_STATUS_MACROS_H_
