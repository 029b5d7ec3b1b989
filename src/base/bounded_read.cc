#include "src/base/bounded_read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

absl::Status CannotBeRead(int error) {
  return absl::FailedPreconditionError(absl::StrCat("cannot be read: ", strerrordesc_np(error)));
}

absl::Status TooLarge(int descriptor, size_t max_bytes) {
  struct stat info {};
  const bool size_known = fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 &&
                          static_cast<size_t>(info.st_size) > max_bytes;
  const std::string size = size_known ? absl::StrCat(info.st_size) : absl::StrCat("more than ", max_bytes);
  return absl::ResourceExhaustedError(absl::StrCat("has ", size, " bytes; at most ", max_bytes, " are allowed"));
}

}  // namespace

absl::StatusOr<std::string> ReadToEnd(int descriptor, size_t max_bytes) {
  std::string text;
  char part[65536];
  for (;;) {
    // One byte beyond the limit shows that there is more.
    const ssize_t bytes = read(descriptor, part, std::min(sizeof(part), max_bytes + 1 - text.size()));
    if (bytes < 0 && errno == EINTR) {
      continue;
    }
    if (bytes < 0) {
      return CannotBeRead(errno);
    }
    if (bytes == 0) {
      return text;
    }
    text.append(part, static_cast<size_t>(bytes));
    if (text.size() > max_bytes) {
      return TooLarge(descriptor, max_bytes);
    }
  }
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, size_t max_bytes) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    return errno == ENOENT ? absl::NotFoundError("is missing") : CannotBeRead(errno);
  }
  const absl::Cleanup close_file = [descriptor] { close(descriptor); };
  return ReadToEnd(descriptor, max_bytes);
}

}  // namespace hotlora
