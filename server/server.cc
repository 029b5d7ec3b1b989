#include "server/server.h"

#include <algorithm>
#include <climits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>

#include "server/alarm_time.h"
#include "server/credentials.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/steady_time.h"

namespace hotlora {
namespace {

// What the health service never stops saying; see the class comment.
constexpr char kLiveService[] = "live";

constexpr absl::Duration kLookEvery = absl::Seconds(1);
// A listener that was deaf for so long does not hear again by itself.
constexpr absl::Duration kDeafForGood = absl::Minutes(1);

// Milliseconds for a channel argument; INT_MAX means never there.
int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

// Reflection for one server: linking gRPC's library turns it on for every server in the process.
class ReflectionOption : public grpc::ServerBuilderOption {
 public:
  explicit ReflectionOption(bool on) : on_(on) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    auto ours = std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>();
    plugins->erase(std::remove_if(plugins->begin(), plugins->end(),
                                  [&](const auto& plugin) { return plugin->name() == ours->name(); }),
                   plugins->end());
    if (on_) {
      plugins->push_back(std::move(ours));
    }
  }

 private:
  const bool on_;
};

void SetArguments(const ServerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  // Images do not compress, and a small compressed message may unpack to a huge one.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  const std::pair<const char*, int> arguments[] = {
      {GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(absl::Seconds(60))},
      {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Milliseconds(absl::Seconds(20))},
      {GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1},
      // Clients may ping every 10 s, with and without calls; half of that, so that jitter does not count as a strike.
      {GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, Milliseconds(absl::Seconds(5))},
      {GRPC_ARG_HTTP2_MAX_PING_STRIKES, 2},
      {GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(absl::Minutes(15))},
      {GRPC_ARG_MAX_CONNECTION_AGE_MS, Milliseconds(absl::Minutes(30))},
      {GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Milliseconds(LongestCall(options))},
      {GRPC_ARG_MAX_CONCURRENT_STREAMS, 100},
      {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(absl::Seconds(10))},
      {GRPC_ARG_MAX_METADATA_SIZE, 16 * 1024},
      // At a deadline gRPC 1.51 would send trailers without the reason, and others once the call is finished, although
      // the stream is closed: a connection error to strict clients. ImageTask ends the call at its deadline instead.
      {GRPC_ARG_ENABLE_DEADLINE_CHECKS, 0},
  };
  for (const auto& [name, value] : arguments) {
    builder.AddChannelArgument(name, value);
  }
  grpc::ResourceQuota quota("hotlora");
  quota.Resize(size_t{512} << 20);
  builder.SetResourceQuota(quota);
}

}  // namespace

absl::Duration LongestCall(const ServerOptions& options) {
  return options.uploads.served ? std::max(options.longest_request, options.uploads.longest) : options.longest_request;
}

Server::Server(ServerOptions options, Metrics* metrics)
    : options_(std::move(options)),
      uploads_(options_.uploads),
      guesses_(options_.guesses),
      images_(&context_),
      openai_(&context_),
      adapters_(&context_),
      controls_(&context_),
      image_prompts_(&context_),
      info_(&context_),
      sdapi_(&context_),
      readiness_(std::make_unique<Readiness>(&metrics->calls(), [this](bool ready) { SetHealth(ready); })) {
  context_.metrics = metrics;
  if (options_.tokens.has_value()) {
    context_.tokens = &tokens_.emplace(*options_.tokens);
  }
  context_.trusted_proxies = options_.trusted_proxies;
  context_.max_message_bytes = options_.max_message_bytes;
  context_.access_log = options_.access_log;
  context_.uploads = &uploads_;
  context_.guesses = &guesses_;
  context_.send_patience = options_.send_patience;
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options, Metrics* metrics) {
  std::unique_ptr<Server> server(new Server(std::move(options), metrics));
  if (!server->options_.tls.cert.empty()) {
    ABSL_ASSIGN_OR_RETURN(
        server->certificates_,
        CertificateStore::Open(server->options_.tls, server->options_.certificate_interval, [metrics](bool good) {
          metrics->calls().CountReload(ReloadedPart::kCertificate, good);
        }));
    metrics->SetCertificateEnd([certificates = server->certificates_.get()] { return certificates->current()->end; });
  }
  ABSL_RETURN_IF_ERROR(server->Listen());
  return server;
}

Server::~Server() {
  if (server_ != nullptr) {
    Stop(absl::ZeroDuration());
  }
  if (certificates_ != nullptr) {
    context_.metrics->SetCertificateEnd({});
  }
}

absl::Status Server::Listen() {
  ConnectionAcceptor::Options accepting;
  // Behind a proxy there are many callers, and who is on this machine can do more harm than that.
  accepting.is_unlimited = [this](const IpAddress& peer) {
    return peer.is_loopback() || options_.trusted_proxies.Contains(peer);
  };
  accepting.on_refused = [this](ConnectionRefusal reason) {
    context_.metrics->calls().CountRefusedConnection(reason);
    if (reason == ConnectionRefusal::kDescriptors) {
      readiness_->Set(NotReadyReason::kNoDescriptors, true);
    }
  };
  auto acceptor = ConnectionAcceptor::Listen(options_.listen, std::move(accepting));
  if (!acceptor.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen ", options_.listen, ": cannot listen there: ", acceptor.status().message()));
  }
  acceptor_ = *std::move(acceptor);
  credentials_ = MakeServerCredentials(certificates_.get());
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  SetArguments(options_, builder);
  builder.SetOption(std::make_unique<ReflectionOption>(options_.reflection));
  builder.RegisterService(&images_);
  builder.RegisterService(&openai_);
  builder.RegisterService(&adapters_);
  builder.RegisterService(&controls_);
  builder.RegisterService(&image_prompts_);
  builder.RegisterService(&info_);
  builder.RegisterService(&sdapi_);
  auto target = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    return absl::InternalError("gRPC's server cannot be started");
  }
  acceptor_->Start(std::move(target));
  {
    MutexLock lock(&mu_);
    health_ = server_->GetHealthCheckService();
    health_->SetServingStatus(kLiveService, true);
  }
  SetHealth(false);
  probe_.emplace(acceptor_.get());
  listener_watch_.emplace("listener-watch", kLookEvery, [this] { LookAtListener(); });
  return absl::OkStatus();
}

void Server::SetHealth(bool ready) {
  MutexLock lock(&mu_);
  if (health_ == nullptr) {
    return;
  }
  for (const char* service : {"", v1::ImageService::service_full_name(), openai::v1::ImagesService::service_full_name(),
                              v1::AdapterService::service_full_name(), v1::ControlService::service_full_name(),
                              v1::ImagePromptService::service_full_name(), v1::ServerService::service_full_name(),
                              sdapi::v1::SdapiService::service_full_name()}) {
    health_->SetServingStatus(service, ready);
  }
}

void Server::LookAtListener() {
  readiness_->Set(NotReadyReason::kNoDescriptors, acceptor_->refuses());
  const absl::Duration deaf = absl::Trunc(probe_->Look(), absl::Seconds(1));
  const std::string text = absl::StrCat("no connection to the gRPC port was accepted for ", absl::FormatDuration(deaf));
  readiness_->Set(NotReadyReason::kListenerDeaf, deaf > absl::ZeroDuration(), text);
  if (deaf >= kDeafForGood) {
    ReportLost(text);
  }
}

void Server::ReportLost(absl::string_view why) {
  if (lost_.exchange(true)) {
    return;
  }
  LogError("only a restart helps, so the server is to end: ", why);
  if (options_.on_lost) {
    options_.on_lost();
  }
}

void Server::FollowEngine(EngineOptions& options) {
  options.on_base_state = [this](bool intact) { readiness_->Set(NotReadyReason::kBaseDamaged, !intact); };
  options.on_device_failure = [this] {
    readiness_->Set(NotReadyReason::kDeviceFailed, true);
    ReportLost("the device is lost");
  };
  options.on_stuck_work = [this](absl::Span<const StuckWork> stuck) {
    readiness_->SetStuckWork(stuck);
    for (const StuckWork& work : stuck) {
      if (work.hopeless) {
        ReportLost(work.text);
      }
    }
  };
}

void Server::Serve(Engine* engine) {
  context_.engine.store(engine);
  readiness_->Set(NotReadyReason::kStarting, false);
}

void Server::ReplaceTokens(Tokens tokens) { tokens_->Replace(std::move(tokens)); }

void Server::ReplaceCertificate(Certificate certificate) { certificates_->Replace(std::move(certificate)); }

void Server::StopServing() { readiness_->Set(NotReadyReason::kDraining, true); }

bool Server::Stop(absl::Duration timeout) {
  // What finished calls still have to send, and what callers of Health.Watch, who never end by
  // themselves, may delay the exit.
  constexpr absl::Duration kFlush = absl::Seconds(1);
  // A call that reaches gRPC's listener while it closes ends as CANCELLED, which clients do not retry. So it stays
  // open, refusing, while calls still come, since balancers need a moment to see NOT_SERVING; but not for ever, since a
  // caller may try again and again.
  constexpr absl::Duration kQuiet = absl::Seconds(1);
  constexpr absl::Duration kNotice = absl::Seconds(5);
  const absl::Time deadline = SteadyNow() + timeout;
  StopServing();
  Engine* const engine = context_.engine.load();
  bool finished = engine == nullptr || engine->Drain(timeout);
  finished = context_.active_calls.WaitUntilNone(std::max(kFlush, deadline - SteadyNow())) && finished;
  context_.active_calls.WaitUntilQuiet(kQuiet, std::min(kNotice, deadline - SteadyNow()));
  listener_watch_.reset();
  acceptor_->Stop();
  server_->Shutdown(AlarmTime(SteadyNow() + kFlush));
  {
    MutexLock lock(&mu_);  // the engine may still tell how its base weights are
    health_ = nullptr;
  }
  server_ = nullptr;
  return finished;
}

}  // namespace hotlora
