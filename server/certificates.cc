#include "server/certificates.h"

#include <ctime>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "server/secret_file.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/steady_time.h"

namespace hotlora {
namespace {

using X509Pointer = std::unique_ptr<X509, decltype(&X509_free)>;

absl::Status Fault(absl::string_view flag, absl::string_view path, absl::string_view what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", what));
}

absl::StatusOr<std::string> Read(absl::string_view flag, const std::string& path) {
  auto text = ReadSecretFile(path);
  return text.ok() ? text : Fault(flag, path, text.status().message());
}

// The certificates of a PEM text, in order; empty if there is none, or if one of them is broken or cut off.
std::vector<X509Pointer> ParseCertificates(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                      &BIO_free);
  std::vector<X509Pointer> certificates;
  while (X509* const certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(certificate, &X509_free);
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    certificates.clear();
  }
  ERR_clear_error();
  return certificates;
}

// Null if `pem` has no private key, or one that needs a password: no terminal is asked for it.
std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> ParseKey(const std::string& pem) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                                                      &BIO_free);
  const auto no_password = [](char*, int, int, void*) { return -1; };
  return {PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr), &EVP_PKEY_free};
}

absl::StatusOr<absl::Time> TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) {
    return absl::InvalidArgumentError("its times cannot be read");
  }
  return absl::FromTM(parts, absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<Certificate> ReadCertificate(const TlsFiles& files) {
  Certificate read;
  ABSL_ASSIGN_OR_RETURN(read.chain, Read("--tls-cert", files.cert));
  ABSL_ASSIGN_OR_RETURN(read.key, Read("--tls-key", files.key));
  const std::vector<X509Pointer> chain = ParseCertificates(read.chain);
  if (chain.empty()) {
    return Fault("--tls-cert", files.cert, "is not a whole PEM certificate chain");
  }
  const auto key = ParseKey(read.key);
  if (key == nullptr) {
    return Fault("--tls-key", files.key, "is not a whole PEM private key without a password");
  }
  if (X509_check_private_key(chain[0].get(), key.get()) != 1) {
    return Fault("--tls-key", files.key, absl::StrCat("is not the key of --tls-cert ", files.cert));
  }
  const auto begin = TimeOf(X509_get0_notBefore(chain[0].get()));
  const auto end = TimeOf(X509_get0_notAfter(chain[0].get()));
  if (!begin.ok() || !end.ok()) {
    return Fault("--tls-cert", files.cert, (begin.ok() ? end : begin).status().message());
  }
  const absl::Time now = absl::Now();
  if (now < *begin || now > *end) {
    return Fault("--tls-cert", files.cert,
                 absl::StrCat("is valid from ", absl::FormatTime(*begin, absl::UTCTimeZone()), " to ",
                              absl::FormatTime(*end, absl::UTCTimeZone()), ", but not now"));
  }
  read.end = *end;
  if (!files.client_ca.empty()) {
    ABSL_ASSIGN_OR_RETURN(read.client_ca, Read("--tls-client-ca", files.client_ca));
    if (ParseCertificates(read.client_ca).empty()) {
      return Fault("--tls-client-ca", files.client_ca, "is not whole PEM certificates");
    }
  }
  return read;
}

absl::StatusOr<std::unique_ptr<CertificateStore>> CertificateStore::Open(TlsFiles files, absl::Duration interval,
                                                                         std::function<void(bool)> on_reload) {
  ABSL_ASSIGN_OR_RETURN(Certificate first, ReadCertificate(files));
  return std::unique_ptr<CertificateStore>(
      new CertificateStore(std::move(files), std::move(first), interval, std::move(on_reload)));
}

CertificateStore::CertificateStore(TlsFiles files, Certificate first, absl::Duration interval,
                                   std::function<void(bool)> on_reload)
    : files_(std::move(files)),
      on_reload_(std::move(on_reload)),
      current_(std::make_shared<const Certificate>(std::move(first))),
      watcher_("certificates", interval, [this] { Look(); }) {}

std::shared_ptr<const Certificate> CertificateStore::current() const {
  MutexLock lock(&mu_);
  return current_;
}

void CertificateStore::Replace(Certificate fresh) {
  {
    MutexLock lock(&mu_);
    if (fresh.chain == current_->chain && fresh.key == current_->key && fresh.client_ca == current_->client_ca) {
      return;
    }
    current_ = std::make_shared<const Certificate>(std::move(fresh));
  }
  LogInfo("--tls-cert ", files_.cert, ": a new certificate is in use, valid until ",
          absl::FormatTime(current()->end, absl::UTCTimeZone()));
  on_reload_(true);
}

void CertificateStore::Look() {
  auto fresh = ReadCertificate(files_);
  if (fresh.ok()) {
    Replace(*std::move(fresh));
    return;
  }
  on_reload_(false);
  if (warnings_.Take(SteadyNow()).has_value()) {
    LogWarning(fresh.status().message(), "; the certificate that was read before stays in use");
  }
}

}  // namespace hotlora
