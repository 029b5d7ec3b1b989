#include "server/reloader.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "server/certificates.h"
#include "server/tokens.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"

namespace hotlora {

Reloader::Reloader(const Flags& flags, std::function<absl::StatusOr<Flags>()> read_flags, Server* server,
                   CallMetrics* metrics)
    : flags_(flags),
      read_flags_(std::move(read_flags)),
      server_(server),
      metrics_(metrics),
      log_level_(flags.log_level) {}

absl::Status Reloader::Reload() {
  absl::Status status = ReadAndTake();
  metrics_->CountReload(ReloadedPart::kSettings, status.ok());
  if (status.ok()) {
    LogInfo("SIGHUP: tokens, certificates and log level were read again");
  } else {
    LogError("SIGHUP: ", status.message(), "; everything stays as it was");
  }
  return status;
}

absl::Status Reloader::ReadAndTake() {
  ABSL_ASSIGN_OR_RETURN(const Flags fresh, read_flags_());
  const std::pair<const char*, std::pair<const std::string&, const std::string&>> paths[] = {
      {"--tokens-file", {flags_.tokens_file, fresh.tokens_file}},
      {"--tls-cert", {flags_.tls.cert, fresh.tls.cert}},
      {"--tls-key", {flags_.tls.key, fresh.tls.key}},
      {"--tls-client-ca", {flags_.tls.client_ca, fresh.tls.client_ca}}};
  for (const auto& [flag, path] : paths) {
    if (path.first != path.second) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " is \"", path.second, "\" and was \"", path.first,
                                                     "\" at the start: another file needs a restart"));
    }
  }
  std::optional<Tokens> tokens;
  if (!flags_.tokens_file.empty()) {
    ABSL_ASSIGN_OR_RETURN(tokens, ReadTokens(flags_.tokens_file));
  }
  std::optional<Certificate> certificate;
  if (!flags_.tls.cert.empty()) {
    ABSL_ASSIGN_OR_RETURN(certificate, ReadCertificate(flags_.tls));
  }
  if (fresh.log_level != log_level_) {
    ABSL_RETURN_IF_ERROR(SetLogLevel(fresh.log_level));
    log_level_ = fresh.log_level;
  }
  if (tokens.has_value()) {
    server_->ReplaceTokens(*std::move(tokens));
  }
  if (certificate.has_value()) {
    server_->ReplaceCertificate(*std::move(certificate));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
