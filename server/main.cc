// hotlora-server: flags -> listener -> engine -> requests, until a signal.
//
// Exit codes: 0 after a signal or a good --check; 1 if something fails, also later, if only a restart helps (the device
// is lost, work is stuck, the gRPC port is deaf); 2 for a bad setting; 128 + its number after a second signal.

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include "server/access_log.h"
#include "server/certificates.h"
#include "server/connection_acceptor.h"
#include "server/flags.h"
#include "server/memory_plan.h"
#include "server/metrics_endpoint.h"
#include "server/process_signals.h"
#include "server/ready_file.h"
#include "server/reloader.h"
#include "server/secret_file.h"
#include "server/server.h"
#include "server/startup.h"
#include "server/tokens.h"
#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/thread_team.h"
#include "src/engine/engine_factory.h"

namespace hotlora {
namespace {

constexpr int kExitFailure = 1;
constexpr int kExitBadSetting = 2;

// What Server::Stop may take beyond its time, and some seconds more.
constexpr absl::Duration kLongestEnd = absl::Seconds(10);

int Fail(const absl::Status& status, int code = kExitFailure) {
  LogPlain(absl::StrCat("hotlora-server: ", status.message()));
  return code;
}

// Where the settings come from; a reload reads them again.
struct FlagSources {
  std::vector<std::string> arguments;
  std::map<std::string, std::string> environment;

  absl::StatusOr<Flags> Read() const { return ParseFlags(arguments, environment); }
};

absl::StatusOr<ServerOptions> MakeServerOptions(const Flags& flags) {
  ServerOptions options;
  options.listen = flags.listen;
  options.max_message_bytes = flags.max_message_bytes;
  options.tls = flags.tls;
  options.reflection = flags.reflection;
  options.uploads.served = ServesUploads(flags);
  options.uploads.files_per_hour = flags.upload_quota_files;
  options.uploads.bytes_per_hour = flags.upload_quota_bytes;
  ABSL_ASSIGN_OR_RETURN(options.trusted_proxies, TrustedProxies::Parse(flags.trusted_proxies));
  if (!flags.tokens_file.empty()) {
    ABSL_ASSIGN_OR_RETURN(options.tokens, ReadTokens(flags.tokens_file));
    if (flags.tls.cert.empty() && !IsLoopback(flags.listen)) {
      LogWarning("tokens are read without TLS: every machine that sees the traffic can use them");
    }
  }
  if (!flags.tls.key.empty()) {
    WarnIfOthersRead("tls-key", flags.tls.key);
  }
  return options;
}

// --fault-file. No step sleeps for more than a minute, whatever the file says.
void SleepAsFileSays(const std::string& path) {
  double seconds = 0.0;
  if (std::ifstream(path) >> seconds && seconds > 0.0) {
    absl::SleepFor(absl::Seconds(std::min(seconds, 60.0)));
  }
}

// What a drain waits for may never end: a disk that hangs, a driver. Ends the process after `patience` in any case.
void ExitAfter(absl::Duration patience) {
  std::thread([patience] {
    absl::SleepFor(patience);
    LogError("a thread is stuck and does not end: exit without it");
    FlushLog();
    std::_Exit(kExitFailure);
  }).detach();
}

EngineConfig MakeEngineConfig(const Flags& flags) {
  EngineConfig config;
  config.model = flags.model;
  config.model_config = flags.model_config;
  config.vae = flags.vae;
  config.device = flags.device;
  config.dtype = flags.dtype;
  config.vae_dtype = flags.vae_dtype;
  config.adapters.directory = flags.adapters;
  config.adapters.follow_links = flags.adapters_follow_links;
  config.embeddings.directory = flags.embeddings;
  config.embeddings.follow_links = flags.embeddings_follow_links;
  config.controls.controls = flags.controls;
  config.controls.image_prompts = flags.image_prompts;
  config.controls.image_encoder = flags.image_encoder;
  config.controls.host_bytes = flags.control_host_bytes;
  config.controls.device_bytes = flags.control_device_bytes;
  config.adapters.allow_unmatched_keys = flags.allow_unmatched_keys;
  config.base_adapters = flags.base_adapters;
  config.interpolate_dora = flags.dora_weighting == "interpolated";
  config.adapter_host_bytes = flags.adapter_host_bytes;
  config.adapter_device_bytes = flags.adapter_device_bytes;
  config.conditioning_bytes = flags.conditioning_cache_bytes;
  config.engine.batch.apply = flags.apply == "merged" ? ApplyPolicy::kMerged
                              : flags.apply == "side" ? ApplyPolicy::kSide
                                                      : ApplyPolicy::kAuto;
  config.engine.batch.max_batch = flags.max_batch;
  config.engine.max_queue = flags.max_queue;
  config.engine.client_share = flags.client_share;
  if (!flags.fault_file.empty()) {
    config.engine.in_each_step = [path = flags.fault_file] { SleepAsFileSays(path); };
  }
  if (flags.max_request_seconds.has_value()) {
    config.max_request_time =
        *flags.max_request_seconds > 0 ? absl::Seconds(*flags.max_request_seconds) : absl::InfiniteDuration();
  }
  return config;
}

int Check(const Flags& flags) {
  absl::Status settings = MakeServerOptions(flags).status();
  if (settings.ok() && !flags.tls.cert.empty()) {
    settings = ReadCertificate(flags.tls).status();
  }
  if (!settings.ok()) {
    return Fail(settings, kExitBadSetting);
  }
  Metrics metrics;
  auto engine = MakeEngine(MakeEngineConfig(flags), &metrics);
  if (!engine.ok()) {
    return Fail(engine.status());
  }
  const CheckReport report = CheckModelAndAdapters(**engine);
  std::fputs(report.text.c_str(), stdout);
  return report.ok ? 0 : kExitFailure;
}

int Serve(const Flags& flags, const FlagSources& sources, ProcessSignals& signals) {
  auto options = MakeServerOptions(flags);
  if (!options.ok()) {
    return Fail(options.status(), kExitBadSetting);
  }
  EngineConfig config = MakeEngineConfig(flags);
  const absl::StatusOr<absl::Duration> longest_request = LongestRequest(config);
  if (!longest_request.ok()) {
    return Fail(longest_request.status());
  }
  options->longest_request = *longest_request;
  LogInfo("at most ", RaiseFileLimit(), " files and connections can be open");
  // In the order of their lives: calls end before the engine, the engine before the figures it
  // writes. The listener stands before the model is loaded, so that a taken port shows at once and
  // early callers hear that the server is starting.
  Metrics metrics;
  std::unique_ptr<AccessLog> access_log;
  if (!flags.access_log.empty()) {
    auto opened = AccessLog::Open(flags.access_log);
    if (!opened.ok()) {
      return Fail(opened.status(), kExitBadSetting);
    }
    access_log = *std::move(opened);
    options->access_log = access_log.get();
  }
  options->on_lost = [&signals] { signals.RequestStop(kExitFailure); };
  absl::StatusOr<std::unique_ptr<Engine>> engine;
  const auto server = Server::Start(*std::move(options), &metrics);
  if (!server.ok()) {
    return Fail(server.status(), kExitBadSetting);
  }
  const auto endpoint =
      MetricsEndpoint::Start(flags.metrics_listen, metrics, [&server] { return (*server)->readiness().WhyNot(); });
  if (!endpoint.ok()) {
    return Fail(endpoint.status(), kExitBadSetting);
  }
  unlink(flags.ready_file.c_str());  // a former process's

  (*server)->FollowEngine(config.engine);
  engine = MakeEngine(std::move(config), &metrics);
  absl::Status status = engine.status();
  if (status.ok()) {
    status = (*engine)->WarmUp();
  }
  if (status.ok()) {
    status = LoadPinned((*engine)->adapters(), "--pin", flags.pin);
  }
  if (status.ok()) {
    status = LoadPinnedControls(**engine, flags.pin_control);
  }
  if (!status.ok()) {
    engine = status;  // ends before the server, which it tells how it is
    return Fail(status);
  }

  LogInfo("memory plan:\n", MemoryPlanText((*engine)->Statistics(), (*engine)->model().device));
  signals.BeginService();
  (*server)->Serve(engine->get());
  if (!flags.ready_file.empty()) {
    if (const absl::Status written = WriteReadyFile(flags.ready_file, (*server)->port(), (*endpoint)->port());
        !written.ok()) {
      return Fail(written);
    }
  }
  LogInfo("serving ", (*engine)->model().name, " on port ", (*server)->port(), ", metrics on port ",
          (*endpoint)->port());
  Reloader reloader(
      flags, [&sources] { return sources.Read(); }, server->get(), &metrics.calls());
  while (signals.Wait() == ProcessSignals::Event::kReload) {
    reloader.Reload().IgnoreError();  // it has counted and logged
  }
  unlink(flags.ready_file.c_str());  // before a caller can see NOT_SERVING: a second signal may end the process at once
  (*server)->StopServing();
  ExitAfter(absl::Seconds(flags.drain_timeout) + kLongestEnd);
  if (!(*server)->Stop(absl::Seconds(flags.drain_timeout))) {
    LogWarning("--drain-timeout has passed: what still ran was cancelled");
  }
  access_log = nullptr;  // writes what waits
  LogInfo("stopped");
  // All has ended. What is left is memory, which a failed device may refuse to give back.
  FlushLog();
  std::_Exit(signals.exit_code());
}

int Main(int argc, char** argv) {
  const FlagSources sources{std::vector<std::string>(argv + 1, argv + argc), ReadEnvironment()};
  const auto flags = sources.Read();
  if (!flags.ok()) {
    return Fail(flags.status(), kExitBadSetting);
  }
  if (flags->answer.has_value()) {
    std::fputs(flags->answer->c_str(), stdout);
    return 0;
  }
  if (absl::Status status = CheckPaths(*flags); !status.ok()) {
    return Fail(status, kExitBadSetting);
  }
  SetLogLevel(flags->log_level).IgnoreError();  // the flags were checked
  if (flags->check) {
    ProcessSignals::Unblock();
    return Check(*flags);
  }
  // gRPC's and protobuf's own lines tell of callers who break off, or what we report ourselves.
  gpr_set_log_function([](gpr_log_func_args* line) { LogDebug("grpc: ", line->message); });
  google::protobuf::SetLogHandler([](google::protobuf::LogLevel, const char*, int, const std::string& message) {
    LogDebug("protobuf: ", message);
  });
  ProcessSignals signals;
  return Serve(*flags, sources, signals);
}

// A signal that comes while the libraries are being loaded waits for ProcessSignals. LibTorch's constructors take a
// good part of a second, twice, since main starts over; this runs before them.
void BlockSignalsFirst(int /*argc*/, char** /*argv*/, char** /*environment*/) { ProcessSignals::Block(); }
__attribute__((section(".preinit_array"), used)) void (*const block_signals_first)(int, char**,
                                                                                   char**) = &BlockSignalsFirst;

// libgomp reads the environment when it is loaded: if this returns true, the process must start over.
bool SetThreadDefaults() {
  bool changed = false;
  for (const auto& [name, value] : ThreadDefaults(CpusOfThisProcess(), getenv("OMP_WAIT_POLICY") != nullptr)) {
    changed |= getenv(name.c_str()) == nullptr && setenv(name.c_str(), value.c_str(), /*replace=*/0) == 0;
  }
  return changed;
}

}  // namespace
}  // namespace hotlora

int main(int argc, char** argv) {
  try {
    if (hotlora::SetThreadDefaults()) {
      execv("/proc/self/exe", argv);  // returns only if it fails; then the server runs, if slower
    }
    return hotlora::Main(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hotlora-server: %s\n", error.what());
    return hotlora::kExitFailure;
  }
}
