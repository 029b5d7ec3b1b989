// TLS and mutual TLS with certificates made here, of keys that exist only here.

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "server/certificates.h"
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

// Self-signed, so it is its own authority; valid between these seconds from now.
Identity MakeIdentity(const std::string& name, long begin = -3600, long end = 3600) {  // NOLINT: OpenSSL's own type
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  X509* const cert = X509_new();
  X509_set_version(cert, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
  X509_gmtime_adj(X509_getm_notBefore(cert), begin);
  X509_gmtime_adj(X509_getm_notAfter(cert), end);
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

class CertificateCallerTest : public TlsTest {
 protected:
  void StartTrusting(const std::vector<std::string>& proxies) {
    ServerOptions options;
    options.tls = ServerFiles();
    options.tls.client_ca = Write("ca.pem", client_identity_.cert + renewed_.cert + other_.cert);
    options.trusted_proxies = *TrustedProxies::Parse(proxies);
    Start(std::move(options));
    engine_.SetScript([this](const FakeEngine::Submission& submission) {
      caller_ = submission.request.caller;
      submission.listener->OnEnd(absl::OkStatus(), {});
    });
  }

  // The caller's name for limits.
  std::string CallerWith(const Identity& identity, const std::string& forwarded = "198.51.100.1") {
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("hotlora.test");
    const auto channel = Connect(arguments, grpc::SslCredentials({server_identity_.cert, identity.key, identity.cert}));
    auto context = Context();
    context->AddMetadata("x-forwarded-for", forwarded);
    v1::GenerateImagesResponse response;
    EXPECT_TRUE(v1::ImageService::NewStub(channel)->GenerateImages(context.get(), Request(), &response).ok());
    return caller_;
  }

  const Identity renewed_ = MakeIdentity("client.test"), other_ = MakeIdentity("other.test");
  std::string caller_;
};

TEST_F(CertificateCallerTest, ACallerIsWhomTheCertificateIsFor) {
  StartTrusting({});
  const std::string first = CallerWith(client_identity_);
  EXPECT_TRUE(absl::StartsWith(first, "certificate:")) << first;
  EXPECT_EQ(CallerWith(renewed_), first);
  EXPECT_EQ(CallerWith(client_identity_, "203.0.113.7"), first);
  EXPECT_NE(CallerWith(other_), first);
}

TEST_F(CertificateCallerTest, ATrustedProxysCertificateIsNotTheCallers) {
  StartTrusting({"127.0.0.1"});
  EXPECT_EQ(CallerWith(client_identity_, "203.0.113.7"), "ipv4:203.0.113.7");
}

TEST_F(TlsTest, UnusableFilesAreNamed) {
  const std::string cut = server_identity_.cert.substr(0, server_identity_.cert.size() / 2);
  const Identity expired = MakeIdentity("hotlora.test", -7200, -3600);
  const Identity early = MakeIdentity("hotlora.test", 3600, 7200);
  struct Case {
    const char* name;
    std::string cert, key, client_ca;
    const char* flag;
    const char* fault;
  };
  const Case cases[] = {
      {"NoCertificate", "no certificate", server_identity_.key, client_identity_.cert, "--tls-cert", "PEM"},
      {"HalfACertificate", cut, server_identity_.key, client_identity_.cert, "--tls-cert", "PEM"},
      {"HalfAChain", server_identity_.cert + cut, server_identity_.key, client_identity_.cert, "--tls-cert", "PEM"},
      {"Empty", "", server_identity_.key, client_identity_.cert, "--tls-cert", "PEM"},
      {"Expired", expired.cert, expired.key, client_identity_.cert, "--tls-cert", "not now"},
      {"NotYetValid", early.cert, early.key, client_identity_.cert, "--tls-cert", "not now"},
      {"NoKey", server_identity_.cert, "no key", client_identity_.cert, "--tls-key", "PEM"},
      {"AnothersKey", server_identity_.cert, client_identity_.key, client_identity_.cert, "--tls-key",
       "not the key of"},
      {"NoAuthority", server_identity_.cert, server_identity_.key, "none", "--tls-client-ca", "PEM"},
      {"HalfAnAuthority", server_identity_.cert, server_identity_.key, cut, "--tls-client-ca", "PEM"},
  };
  for (const Case& c : cases) {
    const TlsFiles files = {Write("c.pem", c.cert), Write("k.pem", c.key), Write("a.pem", c.client_ca)};
    const absl::Status status = ReadCertificate(files).status();
    EXPECT_TRUE(absl::StartsWith(status.message(), absl::StrCat(c.flag, " ", folder_))) << c.name << ": " << status;
    EXPECT_TRUE(absl::StrContains(status.message(), c.fault)) << c.name << ": " << status;
    ServerOptions options;
    options.tls = files;
    EXPECT_FALSE(Server::Start(std::move(options), &metrics_).ok()) << c.name;
  }
  TlsFiles files = ServerFiles();
  ASSERT_EQ(chmod(files.key.c_str(), 0666), 0);
  EXPECT_TRUE(absl::StrContains(ReadCertificate(files).status().message(), "chmod o-w"));
  files.key += ".absent";
  EXPECT_TRUE(absl::StrContains(ReadCertificate(files).status().message(), "cannot be read"));
}

// Certificate and key are replaced as a renewal may do it: one after the other, half written, not at all.
class RotationTest : public TlsTest {
 protected:
  RotationTest() : next_identity_(MakeIdentity("hotlora.test")) {
    ServerOptions options;
    options.tls = ServerFiles();
    options.certificate_interval = absl::Milliseconds(20);
    Start(std::move(options));
  }

  double Reloads(const std::string& outcome) {
    const std::string text = metrics_.Render();
    const std::string start = absl::StrCat("hotlora_tls_reloads_total{outcome=\"", outcome, "\"} ");
    return std::stod(text.substr(text.find(start) + start.size()));
  }

  void WaitForReloads(const std::string& outcome, double count) {
    for (const absl::Time end = absl::Now() + absl::Seconds(30); Reloads(outcome) < count && absl::Now() < end;) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    ASSERT_GE(Reloads(outcome), count);
  }

  // Whether new connections see that identity, and no other.
  bool Shows(const Identity& identity) { return CanCall(grpc::SslCredentials({identity.cert, "", ""})); }

  const Identity next_identity_;
};

TEST_F(RotationTest, APairThatIsNotSoundLeavesTheOldOneInUse) {
  const std::pair<std::string, std::string> unsound[] = {
      {next_identity_.cert, server_identity_.key},
      {server_identity_.cert, next_identity_.key},
      {next_identity_.cert.substr(0, 100), next_identity_.key},
      {next_identity_.cert, next_identity_.key.substr(0, 60)},
      {"", ""},
  };
  for (const auto& [cert, key] : unsound) {
    Write("cert.pem", cert);
    Write("key.pem", key);
    WaitForReloads("error", Reloads("error") + 2);
    EXPECT_TRUE(Shows(server_identity_)) << cert.size() << " " << key.size();
  }
  std::filesystem::remove(folder_ + "/cert.pem");
  std::filesystem::remove(folder_ + "/key.pem");
  WaitForReloads("error", Reloads("error") + 2);
  EXPECT_TRUE(Shows(server_identity_));
  EXPECT_NE(metrics_.Render().find("hotlora_tls_certificate_not_after_timestamp_seconds "), std::string::npos);
  EXPECT_EQ(Reloads("ok"), 0);

  ServerFiles();
  Write("cert.pem", next_identity_.cert);
  Write("key.pem", next_identity_.key);
  WaitForReloads("ok", 1);
  EXPECT_TRUE(Shows(next_identity_));
  EXPECT_FALSE(Shows(server_identity_));
}

}  // namespace
}  // namespace hotlora
