#include "server/credentials.h"

#include <string>

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

namespace hotlora {
namespace {

// TLS whose certificate is asked for at each handshake. gRPC's own watcher of files takes what it cannot use, such as a
// certificate whose key is still the old one, and then fails every handshake.
class TlsCredentials : public grpc::ServerCredentials {
 public:
  TlsCredentials(const CertificateStore* certificates, bool mutual) : certificates_(certificates) {
    credentials_ =
        grpc_ssl_server_credentials_create_with_options(grpc_ssl_server_credentials_create_options_using_config_fetcher(
            mutual ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                   : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &TlsCredentials::Fetch, this));
  }
  ~TlsCredentials() override { grpc_server_credentials_release(credentials_); }

  // Calls are authorized by RpcCall.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  // gRPC asks for one port's handshakes one at a time, and keeps what it got for UNCHANGED.
  static grpc_ssl_certificate_config_reload_status Fetch(void* self_pointer,
                                                         grpc_ssl_server_certificate_config** config) {
    auto& self = *static_cast<TlsCredentials*>(self_pointer);
    const std::shared_ptr<const Certificate> current = self.certificates_->current();
    if (current == self.given_) {
      return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    }
    const grpc_ssl_pem_key_cert_pair pair{current->key.c_str(), current->chain.c_str()};
    // gRPC wants authorities even if no caller is asked for a certificate; they mean nothing then.
    const std::string& authorities = current->client_ca.empty() ? current->chain : current->client_ca;
    *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
    self.given_ = current;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const CertificateStore* const certificates_;
  std::shared_ptr<const Certificate> given_;
  grpc_server_credentials* credentials_ = nullptr;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeServerCredentials(const CertificateStore* certificates) {
  if (certificates == nullptr) {
    return grpc::InsecureServerCredentials();
  }
  return std::make_shared<TlsCredentials>(certificates, !certificates->current()->client_ca.empty());
}

}  // namespace hotlora
