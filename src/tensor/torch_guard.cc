#include "src/tensor/torch_guard.h"

#include <exception>
#include <new>

#include "absl/strings/str_cat.h"
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"

namespace hotlora {
namespace {

absl::Status Fail(absl::StatusCode code, absl::string_view reason, absl::string_view what, absl::string_view outcome,
                  const char* detail) {
  LogError(what, " ", outcome, ": ", detail);
  return MakeError(code, reason, absl::StrCat(what, " ", outcome));
}

}  // namespace

absl::Status GuardTorch(absl::string_view what, absl::FunctionRef<absl::Status()> body) {
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
    return Fail(absl::StatusCode::kInternal, error_reason::kDeviceFailed, what, "failed: the device is lost",
                error.what_without_backtrace());
  } catch (const c10::NotImplementedError& error) {
    return Fail(absl::StatusCode::kUnimplemented, error_reason::kUnimplemented, what,
                "is not implemented on this device", error.what_without_backtrace());
  } catch (const c10::Error& error) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", error.what_without_backtrace());
  } catch (const std::exception& error) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", error.what());
  } catch (...) {
    return Fail(absl::StatusCode::kInternal, error_reason::kInternal, what, "failed", "unknown exception");
  }
}

}  // namespace hotlora
