#ifndef HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_
#define HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

#include "src/base/sha256.h"
#include "src/base/thread_team.h"
#include "src/weights/opened_file.h"

namespace hotlora {

// Bytes of a file, and the memory that they go to. If `to` is null, they are hashed and not kept.
struct FilePart {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  std::byte* to = nullptr;
};

// How many threads read beside the calling one: one for each further CPU, at most three; none if addresses are limited.
// Most of the time of reading goes into memory that is touched for the first time, because the kernel clears each page
// in the thread that reads into it. So several threads are faster.
int ReadersFor(const Cpus& cpus, bool addresses_are_limited);

// Reads `parts` and adds them to `hash` in their order. The calling thread reads and hashes; up to `readers` more read
// what has memory, fewer if there is little to read. If a thread cannot be started, the others do its work, with a
// warning in the log. At the return all threads have ended. After an error the content of the memory is undefined.
// DataLoss if the file is shorter; else what pread failed with.
absl::Status ReadParts(const OpenFile& file, absl::Span<const FilePart> parts, int readers, Sha256& hash);

}  // namespace hotlora

#endif  // HOTLORA_SRC_WEIGHTS_PARALLEL_READ_H_
