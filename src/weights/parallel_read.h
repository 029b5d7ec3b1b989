#ifndef HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_
#define HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "src/base/sha256.h"
#include "src/weights/opened_file.h"

namespace hotlora {

// Bytes of a file, and the memory that they go to. Where that is null, they are hashed alone.
struct FilePart {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::byte* to = nullptr;
};

// Threads that read beside the calling one. Most of the time goes into memory that is touched for the first time: the
// kernel clears its pages, in the thread that reads.
constexpr int kMostReaders = 3;

// Reads `parts` and adds them to `hash` in their order, on the calling thread and `readers` more. A thread that cannot
// be started is done without. DataLoss if the file is shorter; the errors of pread.
absl::Status ReadParts(const OpenFile& file, absl::Span<const FilePart> parts, int readers, Sha256& hash);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_
