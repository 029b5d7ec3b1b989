#include "server/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

#include "src/base/bounded_read.h"
#include "src/base/logging.h"

namespace hotlora {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;

absl::Status CannotBeRead() { return absl::InvalidArgumentError(absl::StrCat("cannot be read: ", strerror(errno))); }

}  // namespace

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return CannotBeRead();
  }
  const absl::Cleanup close_file = [file] { close(file); };
  struct stat status {};
  if (fstat(file, &status) != 0) {
    return CannotBeRead();
  }
  if ((status.st_mode & S_IWOTH) != 0) {
    return absl::InvalidArgumentError("every user of this machine may write it; take that right away (chmod o-w)");
  }
  absl::StatusOr<std::string> text = ReadToEnd(file, kMaxBytes);
  if (!text.ok()) {
    return absl::InvalidArgumentError(text.status().message());
  }
  return text;
}

void WarnIfOthersRead(absl::string_view flag, const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && (status.st_mode & S_IROTH) != 0) {
    LogWarning("--", flag, " ", path, ": every user of this machine may read it; take that right away (chmod o-r)");
  }
}

}  // namespace hotlora
