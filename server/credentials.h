#ifndef HOTLORA_SERVER_CREDENTIALS_H_
#define HOTLORA_SERVER_CREDENTIALS_H_

#include <memory>

#include <grpcpp/security/server_credentials.h>

#include "server/certificates.h"

namespace hotlora {

// What the listener asks of a connection: nothing without `certificates`, else TLS, and mutual TLS if they have a
// client_ca. Each handshake shows what `certificates`, which outlive the listener, have at that moment.
std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CertificateStore* certificates);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CREDENTIALS_H_
