#include "server/startup.h"

#include <algorithm>
#include <future>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "server/memory_plan.h"
#include "server/status_mapping.h"

namespace hotlora {
namespace {

constexpr size_t kPage = 1000;

absl::StatusOr<AdapterInfo> Load(Engine& engine, const std::string& name, bool pin) {
  auto answer = std::make_shared<std::promise<absl::StatusOr<AdapterInfo>>>();
  engine.LoadAdapter(name, AdapterTier::kDevice, pin, /*caller=*/"",
                     [answer](absl::StatusOr<AdapterInfo> info) { answer->set_value(std::move(info)); });
  return answer->get_future().get();
}

absl::StatusOr<std::vector<AdapterInfo>> ListAll(const Engine& engine) {
  std::vector<AdapterInfo> all;
  while (true) {
    const auto page = engine.ListAdapters(all.empty() ? "" : all.back().name, kPage);
    if (!page.ok()) {
      return page.status();
    }
    all.insert(all.end(), page->begin(), page->end());
    if (page->size() < kPage) {
      return all;
    }
  }
}

// Why the adapter cannot be served, with what stands before it in its line; empty if it can.
std::string Fault(Engine& engine, const AdapterInfo& listed) {
  if (listed.state == AdapterState::kFailed) {
    return absl::StrCat(": ", listed.error);
  }
  const auto loaded = Load(engine, listed.name, /*pin=*/false);
  if (!loaded.ok()) {
    return absl::StrCat(": ", CodeName(loaded.status().code()), ": ", loaded.status().message());
  }
  if (!loaded->pinned) {  // so that each is checked against the whole budget
    engine.UnloadAdapter(listed.name).status().IgnoreError();
  }
  return "";
}

std::string MiB(double bytes) { return absl::StrFormat("%.1f MiB", bytes / (1 << 20)); }

}  // namespace

absl::Status LoadPinnedAdapters(Engine& engine, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (const auto loaded = Load(engine, name, /*pin=*/true); !loaded.ok()) {
      return absl::Status(loaded.status().code(), absl::StrCat("--pin ", name, ": ", loaded.status().message()));
    }
  }
  return absl::OkStatus();
}

CheckReport CheckModelAndAdapters(Engine& engine) {
  const ModelInfo& model = engine.model();
  CheckReport report{true, {}};
  absl::StrAppend(&report.text, "model     ", model.name, ", ", model.dtype, " on ", model.device, ", ",
                  model.native_size, "x", model.native_size, ", sha256 ", model.sha256, "\n");
  absl::StrAppend(&report.text, "memory\n", MemoryPlanText(engine.Statistics(), model.device));
  const auto adapters = ListAll(engine);
  if (!adapters.ok()) {
    absl::StrAppend(&report.text, "adapters  FAILED: ", adapters.status().message(), "\n");
    report.ok = false;
    return report;
  }
  uint64_t total = 0;
  uint64_t largest = 0;
  size_t failed = 0;
  std::string lines;
  for (const AdapterInfo& info : *adapters) {
    total += info.bytes;
    largest = std::max(largest, info.bytes);
    const std::string fault = Fault(engine, info);
    failed += fault.empty() ? 0 : 1;
    absl::StrAppend(&lines, fault.empty() ? "  ok      " : "  FAILED  ", info.name, fault, "\n");
  }
  absl::StrAppend(&report.text, "adapters  the folder's files are ", MiB(static_cast<double>(total)), ", the largest ",
                  MiB(static_cast<double>(largest)), "\n");
  absl::StrAppend(&report.text, "adapters  ", adapters->size(), " found, ", failed, " failed\n", lines);
  report.ok = failed == 0;
  return report;
}

}  // namespace hotlora
