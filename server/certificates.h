#ifndef HOTLORA_SERVER_CERTIFICATES_H_
#define HOTLORA_SERVER_CERTIFICATES_H_

// The certificate that the listener shows, and its renewal while the server runs.

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "server/flags.h"
#include "server/line_sampler.h"
#include "src/base/mutex.h"
#include "src/base/periodic_thread.h"

namespace hotlora {

// A sound pair: the key is the certificate's, which is valid now.
struct Certificate {
  std::string chain;      // PEM, leaf first
  std::string key;        // PEM
  std::string client_ca;  // PEM; empty: callers show no certificate
  absl::Time end;         // until when the leaf is valid
};

// Reads the files once and checks what it has read. InvalidArgument names the flag and the file: a file that cannot be
// read, is not whole PEM of its kind or is open to every writer, a key of another certificate, a certificate that is
// not valid yet or not any more.
absl::StatusOr<Certificate> ReadCertificate(const TlsFiles& files);

// Looks at the files again and again, and holds the last sound pair of them. Thread-safe.
class CertificateStore {
 public:
  // `on_reload` is told of each change that was taken (true), and of each look at files that are not sound (false).
  // InvalidArgument as ReadCertificate.
  static absl::StatusOr<std::unique_ptr<CertificateStore>> Open(TlsFiles files, absl::Duration interval,
                                                                std::function<void(bool)> on_reload);

  std::shared_ptr<const Certificate> current() const;

  // Takes `fresh`, which ReadCertificate gave, for the connections that come from now on.
  void Replace(Certificate fresh);

  const TlsFiles& files() const { return files_; }

 private:
  CertificateStore(TlsFiles files, Certificate first, absl::Duration interval, std::function<void(bool)> on_reload);
  void Look();

  const TlsFiles files_;
  const std::function<void(bool)> on_reload_;
  LineSampler warnings_{1, absl::Minutes(1)};
  mutable Mutex mu_;
  std::shared_ptr<const Certificate> current_ ABSL_GUARDED_BY(mu_);
  PeriodicThread watcher_;  // last: it uses all the others
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_CERTIFICATES_H_
