#include "src/weights/opened_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace hotlora {
namespace {

constexpr uint64_t kReadChunk = uint64_t{256} << 10;  // hashed while it is still in the CPU's cache

absl::StatusOr<OpenFile> Adopt(int descriptor) {
  OpenFile file;
  file.descriptor = descriptor;
  struct stat info;
  if (fstat(file.descriptor, &info) != 0) {
    return absl::ErrnoToStatus(errno, "cannot inspect the file");
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError("not a regular file");
  }
  file.bytes = static_cast<uint64_t>(info.st_size);
  return file;
}

// `read_some`(to, most) is read or pread: bytes read, 0 at the file's end, or -1 with errno.
template <typename ReadSome, typename OnPiece>
absl::Status ReadAll(ReadSome read_some, void* destination, uint64_t bytes, OnPiece on_piece) {
  char* to = static_cast<char*>(destination);
  while (bytes > 0) {
    const ssize_t got = read_some(to, bytes);
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      return absl::ErrnoToStatus(errno, "cannot read the file");
    }
    if (got == 0) {
      return absl::DataLossError("the file became shorter while it was read");
    }
    on_piece(to, static_cast<size_t>(got));
    to += got;
    bytes -= static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

OpenFile::~OpenFile() {
  if (descriptor >= 0) {
    close(descriptor);
  }
}

absl::StatusOr<OpenFile> OpenRegular(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing for regular files.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) {
    return absl::ErrnoToStatus(errno, "cannot open the file");
  }
  return Adopt(descriptor);
}

absl::StatusOr<OpenFile> Duplicate(int descriptor) {
  const int own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (own < 0) {
    return absl::ErrnoToStatus(errno, "cannot read the file");
  }
  return Adopt(own);
}

absl::Status ReadPieces(const OpenFile& file, void* destination, uint64_t bytes,
                        const std::function<void(const char* data, size_t bytes)>& on_piece) {
  return ReadAll([&](char* to, uint64_t most) { return read(file.descriptor, to, std::min(most, kReadChunk)); },
                 destination, bytes, on_piece);
}

absl::Status ReadExactly(const OpenFile& file, void* destination, uint64_t bytes, Sha256* hash) {
  return ReadPieces(file, destination, bytes, [hash](const char* data, size_t got) {
    if (hash != nullptr) {
      hash->Update(data, got);
    }
  });
}

absl::Status ReadAt(const OpenFile& file, void* destination, uint64_t bytes, uint64_t offset) {
  return ReadAll([&](char* to, uint64_t most) { return pread(file.descriptor, to, most, static_cast<off_t>(offset)); },
                 destination, bytes, [&](const char*, size_t got) { offset += got; });
}

}  // namespace hotlora
