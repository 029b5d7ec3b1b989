#ifndef HOTLORA_SRC_ADAPTERS_ADAPTER_UPLOAD_H_
#define HOTLORA_SRC_ADAPTERS_ADAPTER_UPLOAD_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_info.h"

namespace hotlora {

struct UploadHeader {
  std::string name;
  uint64_t size = 0;     // bytes of the file
  std::string sha256;    // of the file, 64 lower-case hex digits
  bool replace = false;  // whether a file of that name gives way
};

// An adapter file on its way into the adapter folder. Destroyed before Commit has succeeded, it leaves nothing behind.
//
// Threads  one at a time; calls write to the disk and take as long as that takes
// Errors   after one, the upload is of no further use
//   ResourceExhausted   DISK_FULL
//   InvalidArgument     UPLOAD_SIZE, UPLOAD_CHECKSUM: not the bytes that the header names
class AdapterUpload {
 public:
  virtual ~AdapterUpload() = default;

  virtual absl::Status Append(absl::string_view bytes) = 0;

  // Checks the file as a load would and gives it its name, in one step: readers see it whole or not at all.
  //   InvalidArgument     also ADAPTER_INVALID, ADAPTER_MISMATCH, ADAPTER_UNSUPPORTED (AdapterStore::Acquire)
  //   AlreadyExists       ADAPTER_EXISTS, if it is not to replace
  //   Aborted             ADAPTER_FOLDER_REPLACED, while the file came
  //   ResourceExhausted   ADAPTER_BUDGET: would not fit into the empty host tier
  virtual absl::StatusOr<AdapterInfo> Commit() = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_ADAPTER_UPLOAD_H_
