#include "src/tensor/torch_guard.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iterator>
#include <new>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"
#include "src/base/thread_team.h"

namespace hotlora {
namespace {

absl::Status Fail(absl::StatusCode code, absl::string_view reason, absl::string_view what, absl::string_view outcome,
                  const char* detail) {
  LogError(what, " ", outcome, ": ", detail);
  return MakeError(code, reason, absl::StrCat(what, " ", outcome));
}

// cudaErrorMemoryAllocation; also of the host's pinned memory.
constexpr int32_t kNoMemory = 2;

// CUDA's errors of a call that was refused (invalid value or configuration, no kernel for this device, too many
// resources, pinned memory registered twice, capture of a stream, and so on); what comes later works. Errors of work
// that was under way (illegal address, launch failure, ECC, and so on) are not here: after those, CUDA refuses
// everything until the process ends.
bool LeavesTheDeviceUsable(int32_t code) {
  static constexpr int32_t kRefusals[] = {1,   9,   12,  13,  21,  98,  101, 200, 209, 218, 219,
                                          222, 400, 600, 701, 704, 705, 708, 711, 712, 713, 801};
  constexpr int32_t kFirstOfCapture = 900, kLastOfCapture = 908;
  return std::find(std::begin(kRefusals), std::end(kRefusals), code) != std::end(kRefusals) ||
         (code >= kFirstOfCapture && code <= kLastOfCapture);
}

absl::Status FailOnDevice(absl::string_view what, const c10::AcceleratorError& error) {
  const char* const detail = error.what_without_backtrace();
  if (error.get_error_code() == kNoMemory) {
    return Fail(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, what, "ran out of memory", detail);
  }
  if (LeavesTheDeviceUsable(error.get_error_code())) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", detail);
  }
  return Fail(absl::StatusCode::kInternal, error_reason::kDeviceFailed, what, "failed: the device is lost", detail);
}

}  // namespace

absl::Status GuardTorch(absl::string_view what, absl::FunctionRef<absl::Status()> body) {
  const absl::Cleanup release = [] { ReleaseTeam(); };
  try {
    const c10::InferenceMode inference;
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    return Fail(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, what, "ran out of memory",
                error.what_without_backtrace());
  } catch (const std::bad_alloc& error) {
    return Fail(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, what, "ran out of memory",
                error.what());
  } catch (const c10::AcceleratorError& error) {
    return FailOnDevice(what, error);
  } catch (const c10::NotImplementedError& error) {
    return Fail(absl::StatusCode::kUnimplemented, error_reason::kUnimplemented, what,
                "is not implemented on this device", error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", error.what_without_backtrace());
  } catch (const NonfiniteError& error) {
    return MakeError(absl::StatusCode::kInternal, error_reason::kNonfiniteOutput,
                     absl::StrCat(what, ": ", error.what()));
  } catch (const std::exception& error) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", error.what());
  } catch (...) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", "unknown exception");
  }
}

}  // namespace hotlora
