#ifndef HOTLORA_SRC_ADAPTERS_STORE_READER_H_
#define HOTLORA_SRC_ADAPTERS_STORE_READER_H_

// From a name to a file that is checked and ready to be laid out. No LibTorch here.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/adapters/adapter_directory.h"
#include "src/adapters/adapter_info.h"
#include "src/adapters/adapter_lease.h"
#include "src/adapters/adapter_memory.h"
#include "src/adapters/read_buffer.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// How often a file may change under the reader before the request gives up.
inline constexpr int kMaxReadAttempts = 4;

// The same status with the kind and the name before its message.
absl::Status NamedError(const StoredKind& kind, absl::string_view name, const absl::Status& status);

// A file that passed every check. What is left is to make room and to call staged.lay_out.
struct ReadAdapter {
  AdapterInfo info;  // without content_sha256: the file may still be being hashed
  std::shared_ptr<const void> file;
  std::function<std::string()> content_sha256;  // waits until it is known
  StagedAdapter staged;

  // With content_sha256, for which it waits.
  AdapterInfo HashedInfo() const;
};

// Reads files; what they must hold is the kind's to check.
//
// Errors   of AdapterStore::Acquire; ResourceExhausted (the kind's `budget`) if the file is larger than the host tier
// Threads  thread-safe
class StoreReader {
 public:
  // `directory` outlives it.
  explicit StoreReader(const AdapterDirectory& directory, uint64_t max_header_bytes)
      : directory_(directory), max_header_bytes_(max_header_bytes) {}
  virtual ~StoreReader() = default;

  // The adapter of that name as its file is now: `version` says which one that was, also if it fails.
  absl::StatusOr<ReadAdapter> Read(const std::string& name, AdapterVersion& version, AcquireReport& report) const;

  // An open file as the adapter that it would be under that name.
  absl::StatusOr<ReadAdapter> Check(const std::string& name, int descriptor) const;

  const StoredKind& kind() const { return directory_.kind(); }

  // Bytes that a file may have.
  virtual uint64_t max_file_bytes() const = 0;

 protected:
  struct Contents {
    SafetensorsFile file;
    std::optional<std::string> config = {}, more_config = {};  // as OpenedAdapter's
    std::string config_name = {};
  };

 private:
  // `info` needs no name.
  virtual absl::StatusOr<ReadAdapter> Parse(Contents contents) const = 0;

  absl::StatusOr<ReadAdapter> ParseNamed(const std::string& name, Contents contents) const;
  // The whole file, or all shards as one; errors of SafetensorsFile.
  absl::StatusOr<SafetensorsFile> ReadFile(int descriptor) const;
  absl::StatusOr<SafetensorsFile> ReadFiles(const OpenedAdapter& opened) const;
  absl::StatusOr<Contents> ReadContents(const std::string& name, AdapterVersion& version) const;

  const AdapterDirectory& directory_;
  const uint64_t max_header_bytes_;
  mutable ReadBuffer buffer_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_STORE_READER_H_
