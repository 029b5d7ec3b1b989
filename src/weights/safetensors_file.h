#ifndef HOTLORA_SRC_WEIGHTS_SAFETENSORS_FILE_H_
#define HOTLORA_SRC_WEIGHTS_SAFETENSORS_FILE_H_

// A strict reader of safetensors files (github.com/huggingface/safetensors, README "Format"). Files
// are untrusted: every rule is checked before anything is allocated by its word, and the file is
// read, never mapped. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

#include "src/base/trailing_hash.h"

namespace hotlora {

enum class StoredDtype {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  kU16,
  kU32,
  kU64,
  kF8E4M3,
  kF8E5M2
};

// Bytes of one element.
size_t SizeOf(StoredDtype dtype);

// The format's own name, such as "BF16".
absl::string_view NameOf(StoredDtype dtype);

struct StoredTensor {
  std::string name;
  StoredDtype dtype;
  std::vector<int64_t> shape;  // empty: a scalar
  uint64_t begin = 0;          // offsets into the file's data part, in bytes
  uint64_t end = 0;

  uint64_t bytes() const { return end - begin; }
};

// The parsed header of one file, and with ReadFile its data in memory. Immutable, thread-safe.
//
// Refused, each with the rule that was broken in the message (DataLoss: the bytes are no sound
// safetensors file):
//   shorter than its header says; header over `max_header_bytes`; header not UTF-8, not JSON,
//   deeper than two levels, not an object, with a duplicate key, with another field than dtype,
//   shape, data_offsets; metadata that is not string to string; unknown dtype; negative or
//   fractional numbers; shape product or bytes beyond 64 bits; offsets reversed, overlapping, with
//   holes, past the end; shape x dtype unlike the length; bytes after the last tensor; more than
//   kMaxTensors entries or kMaxDimensions dimensions; a file that gets shorter while it is read.
//   NotFound or PermissionDenied if the file cannot be opened, FailedPrecondition if it is not a
//   regular file (a FIFO never blocks).
// What tensors mean (names, finiteness) is the caller's to check.
class SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own cap
  static constexpr size_t kMaxTensors = 1'000'000;
  static constexpr size_t kMaxDimensions = 8;

  // Reads and checks the header alone.
  static absl::StatusOr<SafetensorsFile> ReadHeader(const std::string& path,
                                                    uint64_t max_header_bytes = kMaxHeaderBytes);
  // The same for a file that the caller opened and keeps, from where it stands.
  static absl::StatusOr<SafetensorsFile> ReadHeader(int descriptor, uint64_t max_header_bytes = kMaxHeaderBytes);

  // Reads the whole file into memory, computes its SHA-256 and checks the header.
  // ResourceExhausted, before anything is read, if the file is over `max_bytes`.
  static absl::StatusOr<SafetensorsFile> ReadFile(const std::string& path, uint64_t max_bytes,
                                                  uint64_t max_header_bytes = kMaxHeaderBytes);

  // Reads the whole file without holding it, on several threads, and computes the SHA-256. Before that, on the calling
  // thread and in the order of the data, `destination` says where each tensor's bytes go: room of its own for
  // tensor.bytes(), or null if they are not wanted. It is not asked about tensors of 0 bytes. If it fails, nothing is
  // read. The header is checked before the first call.
  using Destination = absl::FunctionRef<absl::StatusOr<void*>(const StoredTensor&)>;
  static absl::StatusOr<SafetensorsFile> ReadInto(const std::string& path, Destination destination,
                                                  uint64_t max_header_bytes = kMaxHeaderBytes);

  // Memory for so many bytes, aligned for every dtype.
  using Allocate = absl::FunctionRef<std::shared_ptr<std::byte>(uint64_t)>;

  // ReadFile for a file that the caller opened and keeps, from where it stands (for files opened
  // relative to a folder). The file's bytes go into memory of `allocate`.
  static absl::StatusOr<SafetensorsFile> ReadDescriptor(int descriptor, uint64_t max_bytes,
                                                        uint64_t max_header_bytes = kMaxHeaderBytes,
                                                        Allocate allocate = NewBytes);

  // One of several files that hold one network. The caller keeps the descriptor.
  struct Shard {
    std::string name;  // before messages about it
    int descriptor = -1;
  };

  // The same for several files, as one: its bytes are those of all, one after the other, so data_offset() is 0, and
  // tensors begin where they lie in them. It has no metadata. DataLoss also if two files have a tensor of one name.
  static absl::StatusOr<SafetensorsFile> ReadShards(absl::Span<const Shard> shards, uint64_t max_bytes,
                                                    uint64_t max_header_bytes = kMaxHeaderBytes,
                                                    Allocate allocate = NewBytes);

  // Fresh memory. Not zeroed, unlike a vector: requests wait while adapters are read.
  static std::shared_ptr<std::byte> NewBytes(uint64_t bytes);

  // ReadFile for bytes already in memory (uploads, fuzzing).
  static absl::StatusOr<SafetensorsFile> Parse(std::vector<std::byte> bytes,
                                               uint64_t max_header_bytes = kMaxHeaderBytes);

  // In the order of their data.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

  // nullptr if there is none of that name.
  const StoredTensor* Find(absl::string_view name) const;

  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Bytes of the whole file.
  uint64_t file_bytes() const { return file_bytes_; }

  // Where the data part begins in the file.
  uint64_t data_offset() const { return data_offset_; }

  // The hash of the whole file, 64 hex digits; empty after ReadHeader. A file in memory may still be being hashed when
  // it is parsed: this waits.
  std::string sha256() const { return hash_ == nullptr ? sha256_ : hash_->HexDigest(); }

  // The tensor's bytes (little-endian, row-major), inside this object. REQUIRES: made by ReadFile
  // or Parse.
  const std::byte* Data(const StoredTensor& tensor) const { return bytes_.get() + data_offset_ + tensor.begin; }

 private:
  SafetensorsFile() = default;
  // A file whose data are not in memory.
  static absl::StatusOr<SafetensorsFile> ParseOpened(uint64_t file_bytes, absl::string_view header);
  // `hash` has got all bytes.
  static absl::StatusOr<SafetensorsFile> ParseBytes(std::shared_ptr<const std::byte> bytes, uint64_t size,
                                                    std::shared_ptr<const TrailingHash> hash,
                                                    uint64_t max_header_bytes);
  absl::Status ParseHeader(absl::string_view header);
  absl::Status CheckLayout();
  absl::Status SortNames();  // by_name_

  std::vector<StoredTensor> tensors_;
  std::vector<size_t> by_name_;  // of tensors_; no hash table of Abseil's, which do not survive that memory runs out
  std::map<std::string, std::string> metadata_;
  uint64_t file_bytes_ = 0;
  uint64_t data_offset_ = 0;
  std::string sha256_;                        // of a file whose bytes are elsewhere
  std::shared_ptr<const TrailingHash> hash_;  // of bytes_
  std::shared_ptr<const std::byte> bytes_;    // of the whole file
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_SAFETENSORS_FILE_H_
