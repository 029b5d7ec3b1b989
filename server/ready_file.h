#ifndef HOTLORA_SERVER_READY_FILE_H_
#define HOTLORA_SERVER_READY_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace hotlora {

// Writes {"grpc_port":N,"metrics_port":N,"pid":N} to `path` in one piece: who sees the file sees
// all of it.
absl::Status WriteReadyFile(const std::string& path, int grpc_port, int metrics_port);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_READY_FILE_H_
