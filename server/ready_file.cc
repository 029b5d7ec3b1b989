#include "server/ready_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace hotlora {

absl::Status WriteReadyFile(const std::string& path, int grpc_port, int metrics_port) {
  const std::string draft = absl::StrCat(path, ".draft");  // the same for all: what a killed process left is replaced
  std::ofstream file(draft, std::ios::trunc);
  file << absl::StrCat("{\"grpc_port\":", grpc_port, ",\"metrics_port\":", metrics_port, ",\"pid\":", getpid(), "}\n");
  file.close();
  if (!file.good() || std::rename(draft.c_str(), path.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    unlink(draft.c_str());
    return absl::InternalError(absl::StrCat("--ready-file ", path, ": cannot be written: ", why));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
