#include "src/base/exception_status.h"

#include <exception>
#include <new>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/logging.h"

namespace hotlora {

absl::Status CurrentExceptionStatus() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return MakeError(absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory, "the server is out of memory");
  } catch (const std::exception& error) {
    LogError("unexpected exception: ", error.what());
  } catch (...) {
    LogError("unexpected exception of no known kind");
  }
  return MakeError(absl::StatusCode::kInternal, error_reason::kInternal, "internal error");
}

}  // namespace hotlora
