#include "server/ready_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace hotlora {
namespace {

// False if errno says why.
bool WriteAll(int file, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(file, text.data(), text.size());
    if (written < 0 && errno != EINTR) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(std::max<ssize_t>(written, 0)));
  }
  return true;
}

}  // namespace

absl::Status WriteReadyFile(const std::string& path, int grpc_port, int metrics_port) {
  const std::string draft = absl::StrCat(path, ".draft");  // the same for all: what a killed process left is replaced
  const std::string text =
      absl::StrCat("{\"grpc_port\":", grpc_port, ",\"metrics_port\":", metrics_port, ",\"pid\":", getpid(), "}\n");
  const int file = open(draft.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  bool done = file >= 0 && WriteAll(file, text);
  int error = errno;
  if (file >= 0) {
    close(file);
  }
  if (done) {
    done = std::rename(draft.c_str(), path.c_str()) == 0;
    error = errno;
  }
  if (!done) {
    unlink(draft.c_str());
    return absl::InternalError(absl::StrCat("--ready-file ", path, ": cannot be written: ", std::strerror(error)));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
