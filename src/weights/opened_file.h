#ifndef HOTLORA_SRC_WEIGHTS_OPENED_FILE_H_
#define HOTLORA_SRC_WEIGHTS_OPENED_FILE_H_

// Regular files as SafetensorsFile reads them: piece by piece, never mapped. Errors are those of SafetensorsFile.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "src/base/sha256.h"

namespace hotlora {

// An open regular file and its size at that moment. Movable.
struct OpenFile {
  int descriptor = -1;
  uint64_t bytes = 0;

  OpenFile() = default;
  OpenFile(OpenFile&& other) noexcept : descriptor(std::exchange(other.descriptor, -1)), bytes(other.bytes) {}
  ~OpenFile();
};

absl::StatusOr<OpenFile> OpenRegular(const std::string& path);

// A file that the caller opened and keeps.
absl::StatusOr<OpenFile> Duplicate(int descriptor);

// Reads exactly `bytes` from where the file stands. `on_piece`(data, bytes) is called for each piece that has come.
absl::Status ReadPieces(const OpenFile& file, void* destination, uint64_t bytes,
                        const std::function<void(const char* data, size_t bytes)>& on_piece);

// The same; adds the bytes to `hash` if there is one.
absl::Status ReadExactly(const OpenFile& file, void* destination, uint64_t bytes, Sha256* hash);

// Reads exactly `bytes` at `offset`. The file's position is not used and does not change, so several threads may call
// it at the same time. DataLoss if the file ends before; else the error of pread.
absl::Status ReadAt(const OpenFile& file, void* destination, uint64_t bytes, uint64_t offset);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_OPENED_FILE_H_
