#ifndef HOTLORA_SERVER_CREDENTIALS_H_
#define HOTLORA_SERVER_CREDENTIALS_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/security/server_credentials.h>

#include "server/flags.h"

namespace hotlora {

// What the listener asks of a connection: nothing without files; TLS with certificate and key;
// mutual TLS with client_ca too. The files are read again every 10 s, so certificates can be
// renewed while the server runs: replace certificate and key together, by renaming a folder or a
// link (what Kubernetes does with secrets), or a handshake may see half of the change.
// InvalidArgument names the flag where a file is no PEM of its kind or the key is not the
// certificate's.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsFiles& files);

// Until when the first certificate of the PEM file is valid; nullopt where there is none to be read.
std::optional<absl::Time> CertificateEnd(const std::string& path);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CREDENTIALS_H_
