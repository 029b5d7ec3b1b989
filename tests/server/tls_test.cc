// TLS and mutual TLS with certificates made here, of keys that exist only here.

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "server/credentials.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

struct Identity {
  std::string cert;  // PEM
  std::string key;
};

template <typename Write>
std::string Pem(Write write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  write(bio);
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  std::string text(bytes, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

// Self-signed, so it is its own authority.
Identity MakeIdentity(const std::string& name) {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
  X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
  X509_set_pubkey(cert, key);
  X509_NAME* const subject = X509_get_subject_name(cert);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(cert, subject);
  for (const auto& [id, value] : {std::pair<int, std::string>{NID_subject_alt_name, "DNS:" + name},
                                  std::pair<int, std::string>{NID_basic_constraints, "CA:TRUE"}}) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, id, value.c_str());
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(cert, key, EVP_sha256());
  Identity identity{Pem([&](BIO* bio) { PEM_write_bio_X509(bio, cert); }),
                    Pem([&](BIO* bio) { PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr); })};
  X509_free(cert);
  EVP_PKEY_free(key);
  return identity;
}

class TlsTest : public ServingTest {
 protected:
  TlsTest()
      : folder_(absl::StrCat(::testing::TempDir(), "/tls_test.", getpid())),
        server_identity_(MakeIdentity("hotlora.test")),
        client_identity_(MakeIdentity("client.test")) {
    std::filesystem::create_directory(folder_);
  }
  ~TlsTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  TlsFiles ServerFiles() {
    return {Write("cert.pem", server_identity_.cert), Write("key.pem", server_identity_.key), ""};
  }

  bool CanCall(std::shared_ptr<grpc::ChannelCredentials> credentials) {
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("hotlora.test");
    v1::ServerInfo info;
    auto context = Context();
    return v1::ServerService::NewStub(Connect(arguments, std::move(credentials)))
        ->GetServerInfo(context.get(), {}, &info)
        .ok();
  }

  const std::string folder_;
  const Identity server_identity_;
  const Identity client_identity_;
};

TEST_F(TlsTest, CallersWhoTrustTheCertificateCanCall) {
  ServerOptions options;
  options.tls = ServerFiles();
  Start(std::move(options));
  EXPECT_TRUE(CanCall(grpc::SslCredentials({server_identity_.cert, "", ""})));
  EXPECT_FALSE(CanCall(grpc::SslCredentials({client_identity_.cert, "", ""})));
  EXPECT_FALSE(CanCall(grpc::InsecureChannelCredentials()));
}

TEST_F(TlsTest, MutualTlsAsksForTheCallersCertificate) {
  ServerOptions options;
  options.tls = ServerFiles();
  options.tls.client_ca = Write("ca.pem", client_identity_.cert);
  Start(std::move(options));
  EXPECT_TRUE(CanCall(grpc::SslCredentials({server_identity_.cert, client_identity_.key, client_identity_.cert})));
  EXPECT_FALSE(CanCall(grpc::SslCredentials({server_identity_.cert, "", ""})));
  EXPECT_FALSE(CanCall(grpc::SslCredentials({server_identity_.cert, server_identity_.key, server_identity_.cert})));
}

TEST_F(TlsTest, UnusableFilesAreNamed) {
  TlsFiles files = ServerFiles();
  files.cert = Write("bad.pem", "no certificate");
  EXPECT_EQ(MakeServerCredentials(files).status().message().find("--tls-cert "), 0u);
  files = ServerFiles();
  files.key = Write("other.pem", client_identity_.key);
  EXPECT_EQ(MakeServerCredentials(files).status().message().find("--tls-key "), 0u);
  files = ServerFiles();
  files.client_ca = Write("empty.pem", "");
  EXPECT_EQ(MakeServerCredentials(files).status().message().find("--tls-client-ca "), 0u);
}

}  // namespace
}  // namespace hotlora
