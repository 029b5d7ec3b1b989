#include "server/startup.h"

#include <algorithm>
#include <future>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

#include "server/memory_plan.h"
#include "server/status_mapping.h"
#include "src/adapters/encoder_fit.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

constexpr size_t kPage = 1000;

absl::StatusOr<AdapterInfo> Load(ServedStore& store, const std::string& name, bool pin) {
  auto answer = std::make_shared<std::promise<absl::StatusOr<AdapterInfo>>>();
  store.Load(name, AdapterTier::kDevice, pin, /*caller=*/"",
             [answer](absl::StatusOr<AdapterInfo> info) { answer->set_value(std::move(info)); });
  return answer->get_future().get();
}

absl::StatusOr<std::vector<AdapterInfo>> ListAll(const ServedStore& store) {
  std::vector<AdapterInfo> all;
  while (true) {
    const auto page = store.List(all.empty() ? "" : all.back().name, kPage);
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
std::string Fault(ServedStore& store, const AdapterInfo& listed) {
  if (listed.state == AdapterState::kFailed) {
    return absl::StrCat(": ", listed.error);
  }
  const auto loaded = Load(store, listed.name, /*pin=*/false);
  if (!loaded.ok()) {
    return absl::StrCat(": ", CodeName(loaded.status().code()), ": ", loaded.status().message());
  }
  if (!loaded->pinned) {  // so that each is checked against the whole budget
    store.Unload(listed.name).status().IgnoreError();
  }
  return "";
}

std::string MiB(double bytes) { return absl::StrFormat("%.1f MiB", bytes / (1 << 20)); }

// Loads each file of the store by itself, and says what came of it. `what` begins the lines.
void CheckStore(ServedStore& store, const char* what, CheckReport& report) {
  const auto files = ListAll(store);
  if (!files.ok()) {
    absl::StrAppend(&report.text, what, "  FAILED: ", files.status().message(), "\n");
    report.ok = false;
    return;
  }
  uint64_t total = 0;
  uint64_t largest = 0;
  size_t failed = 0;
  std::string lines;
  for (const AdapterInfo& info : *files) {
    total += info.bytes;
    largest = std::max(largest, info.bytes);
    const std::string fault = Fault(store, info);
    failed += fault.empty() ? 0 : 1;
    absl::StrAppend(&lines, fault.empty() ? "  ok      " : "  FAILED  ", info.name, fault, "\n");
  }
  absl::StrAppend(&report.text, what, "  the folder's files are ", MiB(static_cast<double>(total)), ", the largest ",
                  MiB(static_cast<double>(largest)), "\n");
  absl::StrAppend(&report.text, what, "  ", files->size(), " found, ", failed, " failed\n", lines);
  report.ok = report.ok && failed == 0;
}

// Whether each image prompt has an encoder that fits it.
void CheckEncoder(Engine& engine, CheckReport& report) {
  const auto fail = [&report](const std::string& why) {
    absl::StrAppend(&report.text, "image encoder  FAILED: ", why, "\n");
    report.ok = false;
  };
  const auto prompts = ListAll(engine.image_prompts());
  if (!prompts.ok() || prompts->empty()) {
    return;
  }
  const auto encoders = ListAll(engine.image_encoder());
  if (!encoders.ok() || encoders->empty()) {
    fail("image prompts need one (--image-encoder)");
    return;
  }
  for (const AdapterInfo& prompt : *prompts) {
    const AdapterInfo& encoder = encoders->front();
    if (prompt.state == AdapterState::kFailed || encoder.state == AdapterState::kFailed) {
      continue;  // it has a line of its own
    }
    if (const absl::Status fits = CheckEncoderFits(prompt, encoder); !fits.ok()) {
      fail(std::string(fits.message()));
    }
  }
}

}  // namespace

absl::Status LoadPinned(ServedStore& store, absl::string_view flag, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    if (const auto loaded = Load(store, name, /*pin=*/true); !loaded.ok()) {
      return absl::Status(loaded.status().code(), absl::StrCat(flag, " ", name, ": ", loaded.status().message()));
    }
  }
  return absl::OkStatus();
}

absl::Status LoadPinnedControls(Engine& engine, const std::vector<std::string>& names) {
  std::vector<std::string> controls, image_prompts;
  for (const std::string& name : names) {
    const bool is_prompt =
        absl::IsNotFound(engine.controls().Get(name).status()) && engine.image_prompts().Get(name).ok();
    (is_prompt ? image_prompts : controls).push_back(name);
  }
  ABSL_RETURN_IF_ERROR(LoadPinned(engine.controls(), "--pin-control", controls));
  ABSL_RETURN_IF_ERROR(LoadPinned(engine.image_prompts(), "--pin-control", image_prompts));
  if (image_prompts.empty()) {
    return absl::OkStatus();
  }
  // They are of no use without the encoder.
  std::vector<std::string> encoder;
  ABSL_ASSIGN_OR_RETURN(const std::vector<AdapterInfo> listed, ListAll(engine.image_encoder()));
  for (const AdapterInfo& info : listed) {
    encoder.push_back(info.name);
  }
  return LoadPinned(engine.image_encoder(), "--image-encoder", encoder);
}

CheckReport CheckModelAndAdapters(Engine& engine) {
  const ModelInfo& model = engine.model();
  CheckReport report{true, {}};
  absl::StrAppend(&report.text, "model     ", model.name, ", ", model.dtype, " on ", model.device, ", ",
                  model.native_size, "x", model.native_size, ", sha256 ", model.sha256, "\n");
  absl::StrAppend(&report.text, "memory\n", MemoryPlanText(engine.Statistics(), model.device));
  CheckStore(engine.adapters(), "adapters", report);
  for (const auto& [store, what] : {std::pair(&engine.controls(), "controls"),
                                    {&engine.image_prompts(), "image prompts"},
                                    {&engine.image_encoder(), "image encoder"}}) {
    if (!store->List("", 1).value_or(std::vector<AdapterInfo>()).empty()) {
      CheckStore(*store, what, report);
    }
  }
  CheckEncoder(engine, report);
  return report;
}

}  // namespace hotlora
