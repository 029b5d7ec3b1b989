#ifndef HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_
#define HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_upload.h"
#include "src/adapters/adapter_writer.h"

namespace hotlora {

// What the adapter store does for an upload.
struct UploadSteps {
  // Reads and checks the finished file from where the descriptor stands; errors as AdapterStore::Acquire.
  std::function<absl::StatusOr<AdapterInfo>(int descriptor)> check;
  // The file, of which `check` said this, has its name now. Returns what is known of the adapter.
  std::function<absl::StatusOr<AdapterInfo>(const AdapterInfo& checked)> placed;
};

// An upload through a hidden file of `writer`, which outlives it; errors of AdapterStore::BeginUpload. `max_bytes`:
// larger files are ResourceExhausted (ADAPTER_BUDGET).
absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginFileUpload(UploadHeader header, const AdapterWriter& writer,
                                                               uint64_t max_bytes, UploadSteps steps);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_
