#include "server/credentials.h"

#include "absl/strings/str_cat.h"
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr unsigned int kRefreshSeconds = 10;

// gRPC itself takes files it cannot use and then fails every handshake.
absl::Status CheckFiles(const TlsFiles& files) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free);
  const auto fail = [](absl::string_view flag, absl::string_view path, absl::string_view what) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", what));
  };
  if (SSL_CTX_use_certificate_chain_file(context.get(), files.cert.c_str()) != 1) {
    return fail("--tls-cert", files.cert, "is no PEM certificate chain");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail("--tls-key", files.key, "is no PEM private key of the certificate");
  }
  if (!files.client_ca.empty() && SSL_CTX_load_verify_locations(context.get(), files.client_ca.c_str(), nullptr) != 1) {
    return fail("--tls-client-ca", files.client_ca, "has no PEM certificate");
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<absl::Time> CertificateEnd(const std::string& path) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> file(BIO_new_file(path.c_str(), "r"), &BIO_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(
      file == nullptr ? nullptr : PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr), &X509_free);
  std::tm end{};
  if (certificate == nullptr || ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) {
    ERR_clear_error();
    return std::nullopt;
  }
  return absl::FromTM(end, absl::UTCTimeZone());
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(const TlsFiles& files) {
  using grpc::experimental::FileWatcherCertificateProvider;
  if (files.cert.empty()) {
    return grpc::InsecureServerCredentials();
  }
  ABSL_RETURN_IF_ERROR(CheckFiles(files));
  const bool mutual = !files.client_ca.empty();
  grpc::experimental::TlsServerCredentialsOptions options(
      mutual ? std::make_shared<FileWatcherCertificateProvider>(files.key, files.cert, files.client_ca, kRefreshSeconds)
             : std::make_shared<FileWatcherCertificateProvider>(files.key, files.cert, kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (mutual) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  } else {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace hotlora
