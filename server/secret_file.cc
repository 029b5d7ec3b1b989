#include "server/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

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
  std::string text;
  char part[65536];
  for (ssize_t bytes; (bytes = read(file, part, sizeof(part))) != 0;) {
    if (bytes < 0 && errno != EINTR) {
      return CannotBeRead();
    }
    text.append(part, bytes < 0 ? 0 : static_cast<size_t>(bytes));
    if (text.size() > kMaxBytes) {
      return absl::InvalidArgumentError(absl::StrCat("is larger than ", kMaxBytes, " bytes"));
    }
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
