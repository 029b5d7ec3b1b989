#include "client/report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/util/json_util.h>

namespace hotlora {
namespace {

// The message as protobuf's JSON, where 64-bit numbers are strings, with the names of its .proto.
nlohmann::json MessageJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) {
    return nullptr;
  }
  return nlohmann::json::parse(text);
}

// "host" from ADAPTER_TIER_HOST.
std::string TierWord(v1::AdapterTier tier) {
  const std::string name = v1::AdapterTier_Name(tier);
  const size_t prefix = std::string("ADAPTER_TIER_").size();
  return name.size() <= prefix ? "?" : absl::AsciiStrToLower(name.substr(prefix));
}

std::string StateWord(const v1::Adapter& adapter) {
  switch (adapter.state()) {
    case v1::ADAPTER_STATE_LOADING:
      return "loading";
    case v1::ADAPTER_STATE_FAILED:
      return "failed";
    default:
      return TierWord(adapter.tier());
  }
}

std::string MiB(uint64_t bytes) { return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20)); }

}  // namespace

std::string GenerationText(const GeneratedImages& images, const std::vector<std::string>& files) {
  const v1::Summary& summary = images.summary;
  std::string text;
  for (size_t i = 0; i < images.images.size(); ++i) {
    const v1::Image& image = images.images[i];
    absl::StrAppend(&text, files[i], "  ", image.width(), "x", image.height(), "  seed ", image.seed(), "\n");
  }
  absl::StrAppendFormat(&text, "%.2f s: queue %.2f, adapters %.2f, encode %.2f, denoise %.2f, decode %.2f  (%s)\n",
                        summary.total_seconds(), summary.queue_seconds(), summary.adapter_seconds(),
                        summary.encode_seconds(), summary.denoise_seconds(), summary.decode_seconds(), summary.dtype());
  for (const v1::AppliedAdapter& adapter : summary.adapters()) {
    absl::StrAppend(&text, "adapter ", adapter.name(), "  weight ", adapter.weight(), "  found on ",
                    TierWord(adapter.tier_found()), "  ", adapter.matched_modules(), " modules\n");
    if (adapter.unmatched_keys_size() > 0) {
      absl::StrAppend(&text, "  not applied: ", absl::StrJoin(adapter.unmatched_keys(), ", "), "\n");
    }
    for (const std::string& note : adapter.notes()) {
      absl::StrAppend(&text, "  note: ", note, "\n");
    }
  }
  const auto add_controls = [&text](const char* what, const auto& controls) {
    for (const v1::AppliedControl& control : controls) {
      absl::StrAppend(&text, what, " ", control.name(), "  scale ", control.scale(), "  found on ",
                      TierWord(control.tier_found()), "\n");
    }
  };
  add_controls("control", summary.controls());
  add_controls("image prompt", summary.image_prompts());
  if (summary.swap_cost().changed()) {
    absl::StrAppendFormat(&text, "swap %.4f s, %s\n", summary.swap_cost().total_seconds(), summary.swap_cost().form());
  }
  return text;
}

nlohmann::json GenerationJson(const GeneratedImages& images, const std::vector<std::string>& files) {
  nlohmann::json json = {{"request_id", images.accepted.request_id()},
                         {"images", nlohmann::json::array()},
                         {"summary", MessageJson(images.summary)}};
  for (size_t i = 0; i < images.images.size(); ++i) {
    const v1::Image& image = images.images[i];
    json["images"].push_back({{"file", files[i]},
                              {"index", image.index()},
                              {"seed", image.seed()},
                              {"width", image.width()},
                              {"height", image.height()},
                              {"bytes", image.data().size()}});
  }
  return json;
}

std::string AdaptersText(const std::vector<v1::Adapter>& adapters) {
  size_t width = 4;
  for (const v1::Adapter& adapter : adapters) {
    width = std::max(width, adapter.name().size());
  }
  std::string text = absl::StrFormat("%-*s  %-8s  %-8s  %4s  %12s\n", width, "NAME", "WHERE", "FORMAT", "RANK", "SIZE");
  for (const v1::Adapter& adapter : adapters) {
    absl::StrAppendFormat(&text, "%-*s  %-8s  %-8s  %4s  %12s%s\n", width, adapter.name(), StateWord(adapter),
                          adapter.format().empty() ? "-" : adapter.format(),
                          adapter.has_rank_max() ? absl::StrCat(adapter.rank_max()) : "-", MiB(adapter.bytes()),
                          adapter.pinned() ? "  pinned" : "");
  }
  return text;
}

nlohmann::json AdaptersJson(const std::vector<v1::Adapter>& adapters) {
  nlohmann::json json = {{"adapters", nlohmann::json::array()}};
  for (const v1::Adapter& adapter : adapters) {
    json["adapters"].push_back(AdapterJson(adapter));
  }
  return json;
}

std::string AdapterText(const v1::Adapter& adapter) {
  std::string text = absl::StrCat("name     ", adapter.name(), "\nwhere    ", StateWord(adapter),
                                  adapter.pinned() ? ", pinned" : "", "\nsize     ", MiB(adapter.bytes()), "\n");
  if (!adapter.content_sha256().empty()) {
    absl::StrAppend(&text, "format   ", adapter.format(), ", rank up to ", adapter.rank_max(), "\nchanges  ",
                    absl::StrJoin(adapter.targets(), ", "), ", ", adapter.matched_modules(), " modules\nin use   ",
                    adapter.in_use(), "\nsha256   ", adapter.content_sha256(), "\n");
    for (const auto& [label, value] : {std::pair("trained  ", &adapter.base_model()),
                                       {"for      ", &adapter.architecture()},
                                       {"title    ", &adapter.title()},
                                       {"trigger  ", &adapter.trigger_phrase()}}) {
      if (!value->empty()) {
        absl::StrAppend(&text, label, *value, "\n");
      }
    }
  }
  for (const std::string& note : adapter.notes()) {
    absl::StrAppend(&text, "note     ", note, "\n");
  }
  if (!adapter.error().empty()) {
    absl::StrAppend(&text, "error    ", adapter.error(), "\n");
  }
  return text;
}

nlohmann::json AdapterJson(const v1::Adapter& adapter) { return MessageJson(adapter); }

std::string ServerInfoText(const v1::ServerInfo& info) {
  const v1::ServerLimits& limits = info.limits();
  return absl::StrCat("server   hotlora ", info.version(), "\nmodel    ", info.model(), ", ", info.native_width(), "x",
                      info.native_height(), "\nsha256   ", info.model_sha256(), "\ncompute  ", info.dtype(), " on ",
                      info.device(), "\nlimits   batch ", limits.max_batch(), ", queue ", limits.max_queue(),
                      ", images ", limits.max_images(), ", steps ", limits.max_steps(), ", adapters ",
                      limits.max_adapters(), ", pixels ", limits.max_pixels(), "\n");
}

nlohmann::json ServerInfoJson(const v1::ServerInfo& info) { return MessageJson(info); }

std::string StatisticsText(const v1::Statistics& statistics) {
  std::string text = absl::StrFormat("%-36s  %12s  %12s  %s\n", "MEMORY", "PLANNED", "USED", "WHERE");
  for (const v1::MemoryArea& area : statistics.memory()) {
    absl::StrAppendFormat(&text, "%-36s  %12s  %12s  %s\n", area.what(), MiB(area.planned_bytes()),
                          MiB(area.used_bytes()), area.where());
  }
  const v1::DeviceMemory& device = statistics.device_memory();
  absl::StrAppendFormat(&text, "%-36s  %12s  %12s  %s\n", "all allocated", "", MiB(device.allocated_bytes()),
                        device.device());
  for (const v1::TierStatistics& tier : statistics.tiers()) {
    absl::StrAppend(&text, TierWord(tier.tier()), " tier: ", tier.entries(), " adapters, ", tier.hits(), " hits, ",
                    tier.misses(), " misses, ", tier.evictions(), " evictions, ", MiB(tier.pinned_bytes()),
                    " pinned\n");
  }
  absl::StrAppend(&text, IntegrityText(statistics.base()));
  for (const v1::AdapterStatistics& entry : statistics.adapters()) {
    absl::StrAppendFormat(&text, "%s  %s  requests %d  host hits %d  reads %d  failed %d  read %.3f s  parse %.3f s\n",
                          entry.adapter().name(), StateWord(entry.adapter()), entry.requests(), entry.host_hits(),
                          entry.reads(), entry.failed_reads(), entry.read_seconds(), entry.parse_seconds());
  }
  return text;
}

nlohmann::json StatisticsJson(const v1::Statistics& statistics) { return MessageJson(statistics); }

std::string IntegrityText(const v1::BaseIntegrity& integrity) {
  return absl::StrCat("base weights ", integrity.intact() ? "intact" : "DAMAGED", ": ", integrity.modules_checked(),
                      " modules checked, ", integrity.mismatches(), " mismatches, ", integrity.repaired(),
                      " repaired\n");
}

nlohmann::json IntegrityJson(const v1::BaseIntegrity& integrity) { return MessageJson(integrity); }

}  // namespace hotlora
