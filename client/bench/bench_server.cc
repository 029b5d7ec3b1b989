#include "client/bench/bench_server.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <curl/curl.h>

#include "client/bench/statistics.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"

namespace hotlora {
namespace {

constexpr std::chrono::seconds kIdlePatience{10};
constexpr std::chrono::milliseconds kPollPause{5};

absl::Status ToAbsl(const CallResult& result) {
  return absl::Status(static_cast<absl::StatusCode>(result.status.error_code()), result.status.error_message());
}

bool IsIdle(const v1::Statistics& statistics) {
  return statistics.queue_depth() == 0 &&
         std::all_of(statistics.adapters().begin(), statistics.adapters().end(),
                     [](const v1::AdapterStatistics& adapter) { return adapter.adapter().in_use() == 0; });
}

// What `url` answers to GET. No proxy is asked: the page is a server's own.
absl::StatusOr<std::string> Download(const std::string& url) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> transfer(curl_easy_init(), &curl_easy_cleanup);
  std::string page;
  char error[CURL_ERROR_SIZE] = "";
  curl_easy_setopt(transfer.get(), CURLOPT_URL, url.c_str());
  curl_easy_setopt(transfer.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(transfer.get(), CURLOPT_PROXY, "");
  curl_easy_setopt(transfer.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(transfer.get(), CURLOPT_TIMEOUT, 30L);
  curl_easy_setopt(transfer.get(), CURLOPT_ERRORBUFFER, error);
  curl_easy_setopt(transfer.get(), CURLOPT_WRITEDATA, &page);
  curl_easy_setopt(
      transfer.get(), CURLOPT_WRITEFUNCTION, +[](const char* part, size_t one, size_t size, void* whole) {
        static_cast<std::string*>(whole)->append(part, one * size);
        return one * size;
      });
  const CURLcode result = curl_easy_perform(transfer.get());
  if (result == CURLE_URL_MALFORMAT || result == CURLE_UNSUPPORTED_PROTOCOL) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics ", url, ": is not a URL like http://HOST:PORT/PATH"));
  }
  if (result != CURLE_OK) {
    return absl::UnavailableError(
        absl::StrCat("--metrics ", url, ": ", *error != '\0' ? error : curl_easy_strerror(result)));
  }
  long code = 0;  // NOLINT: curl's own type
  curl_easy_getinfo(transfer.get(), CURLINFO_RESPONSE_CODE, &code);
  if (code != 200) {
    return absl::UnavailableError(absl::StrCat("--metrics ", url, ": answers ", code));
  }
  return page;
}

}  // namespace

double TimedAnswer::median_step() const { return step_seconds.empty() ? 0.0 : Median(step_seconds); }

std::string ColdestSource(const v1::Summary& summary) {
  v1::AdapterTier coldest = v1::ADAPTER_TIER_DEVICE;
  for (const v1::AppliedAdapter& adapter : summary.adapters()) {
    coldest = std::min(coldest, adapter.tier_found());
  }
  return coldest == v1::ADAPTER_TIER_DISK ? "disk" : coldest == v1::ADAPTER_TIER_HOST ? "host" : "device";
}

std::map<std::string, double> PlainMetrics(absl::string_view page) {
  std::map<std::string, double> metrics;
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    double value;
    if (!absl::StartsWith(line, "#") && !absl::StrContains(parts.first, '{') &&
        absl::SimpleAtod(parts.second, &value)) {
      metrics[std::string(parts.first)] = value;
    }
  }
  return metrics;
}

BenchServer::BenchServer(ImageClient* client, std::string metrics_url)
    : client_(client), metrics_url_(std::move(metrics_url)) {}

absl::StatusOr<TimedAnswer> BenchServer::Generate(const v1::GenerateImagesRequest& request) {
  TimedAnswer answer;
  GeneratedImages images;
  const Stopwatch stopwatch;
  const CallResult result = client_->Generate(
      request,
      [&](const v1::GenerateImagesEvent& event) {
        if (event.has_progress()) {
          answer.step_seconds.push_back(event.progress().step_seconds());
        }
      },
      images);
  answer.seconds = stopwatch.Seconds();
  ABSL_RETURN_IF_ERROR(ToAbsl(result));
  answer.summary = std::move(images.summary);
  return answer;
}

absl::Status BenchServer::GenerateAndCancel(const v1::GenerateImagesRequest& request, bool at_step) {
  const CallResult result = client_->GenerateUntil(request, [at_step](const v1::GenerateImagesEvent& event) {
    return at_step ? event.has_progress() : event.has_accepted();
  });
  return result.status.error_code() == grpc::StatusCode::CANCELLED ? absl::OkStatus() : ToAbsl(result);
}

absl::StatusOr<std::vector<std::string>> BenchServer::AdapterNames() {
  std::vector<v1::Adapter> adapters;
  ABSL_RETURN_IF_ERROR(ToAbsl(client_->ListAdapters(&adapters)));
  std::vector<std::string> names;
  names.reserve(adapters.size());
  for (v1::Adapter& adapter : adapters) {
    names.push_back(std::move(*adapter.mutable_name()));
  }
  return names;
}

absl::Status BenchServer::Place(const std::string& adapter, absl::string_view tier) {
  v1::Adapter placed;
  ABSL_RETURN_IF_ERROR(ToAbsl(client_->UnloadAdapter(adapter, &placed)));
  if (tier == "disk") {
    return absl::OkStatus();
  }
  const v1::AdapterTier wanted = tier == "host" ? v1::ADAPTER_TIER_HOST : v1::ADAPTER_TIER_DEVICE;
  ABSL_RETURN_IF_ERROR(ToAbsl(client_->LoadAdapter(adapter, /*pin=*/false, &placed, wanted)));
  if (placed.tier() != wanted) {
    return absl::FailedPreconditionError(absl::StrCat(adapter, " does not reach the tier ", tier));
  }
  return absl::OkStatus();
}

absl::StatusOr<IdleFigures> BenchServer::ReadIdle() {
  v1::Statistics statistics;
  const auto end = std::chrono::steady_clock::now() + kIdlePatience;
  while (true) {
    statistics.Clear();
    ABSL_RETURN_IF_ERROR(ToAbsl(client_->GetStatistics(&statistics)));
    if (IsIdle(statistics)) {
      break;
    }
    if (std::chrono::steady_clock::now() > end) {
      return absl::DeadlineExceededError("the server does not become idle; stop its other callers and try again");
    }
    std::this_thread::sleep_for(kPollPause);
  }
  IdleFigures figures;
  for (const v1::TierStatistics& tier : statistics.tiers()) {
    if (tier.tier() == v1::ADAPTER_TIER_HOST) {
      figures.host_tier_bytes = tier.used_bytes();
    }
  }
  figures.allocated_bytes = statistics.device_memory().allocated_bytes();
  figures.reserved_bytes = statistics.device_memory().reserved_bytes();
  if (!metrics_url_.empty()) {
    ABSL_ASSIGN_OR_RETURN(const std::string page, Download(metrics_url_));
    std::map<std::string, double> metrics = PlainMetrics(page);
    figures.resident_bytes = static_cast<uint64_t>(metrics["process_resident_memory_bytes"]);
    figures.open_files = static_cast<uint64_t>(metrics["process_open_fds"]);
    figures.threads = static_cast<uint64_t>(metrics["process_threads"]);
  }
  return figures;
}

absl::StatusOr<v1::BaseIntegrity> BenchServer::VerifyBase() {
  v1::BaseIntegrity integrity;
  ABSL_RETURN_IF_ERROR(ToAbsl(client_->VerifyBase(&integrity)));
  return integrity;
}

absl::StatusOr<v1::ServerInfo> BenchServer::Info() {
  v1::ServerInfo info;
  ABSL_RETURN_IF_ERROR(ToAbsl(client_->GetServerInfo(&info)));
  return info;
}

}  // namespace hotlora
