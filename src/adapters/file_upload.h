#ifndef HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_
#define HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_upload.h"
#include "src/adapters/adapter_writer.h"

namespace hotlora {

// Normalises the header's name. InvalidArgument (INVALID_REQUEST): each bad field.
absl::Status CheckHeader(UploadHeader& header);

// What the adapter store does for an upload.
struct UploadSteps {
  // Reads and checks the finished file from where the descriptor stands; errors as AdapterStore::Acquire. `name` is
  // normal (NormalizeName).
  std::function<absl::StatusOr<AdapterInfo>(const std::string& name, int descriptor)> check;
  // Called when the file has its name, with the result of `check`. Returns what is known of the adapter.
  std::function<absl::StatusOr<AdapterInfo>(const AdapterInfo& checked)> committed;
};

// Disk space that uploads under way set aside. Thread-safe; outlives them.
class UploadSpace {
 public:
  explicit UploadSpace(uint64_t capacity) : capacity_(capacity) {}

  uint64_t capacity() const { return capacity_; }
  bool Take(uint64_t bytes);
  void GiveBack(uint64_t bytes) { taken_.fetch_sub(bytes); }

 private:
  const uint64_t capacity_;
  std::atomic<uint64_t> taken_{0};
};

// An upload through a hidden file of `writer`, which outlives it; errors of AdapterStore::BeginUpload. Files larger
// than `space` are ResourceExhausted (ADAPTER_BUDGET), as are those that do not fit beside others now (UPLOADS_BUSY).
absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginFileUpload(UploadHeader header, const AdapterWriter& writer,
                                                               UploadSpace* space, UploadSteps steps);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_FILE_UPLOAD_H_
