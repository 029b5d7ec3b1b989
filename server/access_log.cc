#include "server/access_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "src/base/logging.h"

namespace hotlora {
namespace {

nlohmann::ordered_json AdaptersJson(const ImageAccess& image) {
  auto adapters = nlohmann::ordered_json::array();
  if (image.summary.adapters.empty()) {  // the request never came so far that they were looked up
    for (const std::string& name : image.adapters_asked) {
      adapters.push_back({{"name", name}});
    }
  }
  for (const AppliedAdapter& adapter : image.summary.adapters) {
    nlohmann::ordered_json entry = {{"name", adapter.name},
                                    {"sha256_12", adapter.content_sha256.substr(0, 12)},
                                    {"weight", adapter.weight},
                                    {"tier", kAdapterTierNames[static_cast<size_t>(adapter.tier_found)]}};
    if (!adapter.range.whole()) {
      entry["start"] = adapter.range.start;
      entry["end"] = adapter.range.end;
    }
    for (const BlockWeight& block : adapter.blocks) {
      entry["blocks"][block.prefix] = block.weight;
    }
    adapters.push_back(std::move(entry));
  }
  return adapters;
}

// ControlNets or image prompts.
nlohmann::ordered_json ControlsJson(const std::vector<AppliedControl>& controls) {
  auto json = nlohmann::ordered_json::array();
  for (const AppliedControl& control : controls) {
    json.push_back({{"name", control.name},
                    {"sha256_12", control.content_sha256.substr(0, 12)},
                    {"scale", control.scale},
                    {"tier", kAdapterTierNames[static_cast<size_t>(control.tier_found)]}});
  }
  return json;
}

// What was given of it.
nlohmann::ordered_json HiresJson(const HiresPass& hires) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (hires.scale.has_value()) json["scale"] = *hires.scale;
  if (hires.strength.has_value()) json["strength"] = *hires.strength;
  if (hires.steps.has_value()) json["steps"] = *hires.steps;
  return json;
}

void AddImage(const ImageAccess& image, nlohmann::ordered_json& line) {
  const ImageSummary& summary = image.summary;
  line["width"] = summary.width > 0 ? summary.width : image.width;
  line["height"] = summary.height > 0 ? summary.height : image.height;
  line["steps"] = image.steps;
  line["images"] = image.images;
  if (image.hires.has_value()) {
    line["hires"] = HiresJson(*image.hires);
  }
  line["image_bytes"] = image.image_bytes;
  line["adapters"] = AdaptersJson(image);
  if (!summary.controls.empty()) {
    line["controls"] = ControlsJson(summary.controls);
  }
  if (!summary.image_prompts.empty()) {
    line["image_prompts"] = ControlsJson(summary.image_prompts);
  }
  line["phases"] = {{"queue", summary.queue_seconds},
                    {"adapter", summary.adapter_seconds},
                    {"encode", summary.encode_seconds},
                    {"denoise", summary.denoise_seconds},
                    {"decode", summary.decode_seconds}};
}

// Whether a regular file ends in the middle of a line, as a process that was killed may leave it.
bool EndsInALine(const std::string& path, int descriptor) {
  struct stat info;
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0) {
    return false;
  }
  std::ifstream file(path, std::ios::binary);
  char last = '\n';
  return file.seekg(-1, std::ios::end).get(last) && last != '\n';
}

}  // namespace

std::string ToJsonLine(const AccessEntry& entry) {
  nlohmann::ordered_json line;
  line["time"] = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", entry.time, absl::UTCTimeZone());
  line["method"] = entry.method;
  line["outcome"] = entry.code == "OK" ? "ok" : entry.code == "CANCELLED" ? "cancelled" : "error";
  line["code"] = entry.code;
  if (!entry.reason.empty()) {
    line["reason"] = entry.reason;
  }
  line["request_id"] = entry.request_id;
  if (!entry.traceparent.empty()) {
    line["traceparent"] = entry.traceparent;
  }
  line["peer"] = entry.peer;
  line["seconds"] = entry.seconds;
  if (entry.unlogged_before > 0) {
    line["unlogged_before"] = entry.unlogged_before;
  }
  if (entry.image.has_value()) {
    AddImage(*entry.image, line);
  }
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<std::unique_ptr<AccessLog>> AccessLog::Open(const std::string& path) {
  if (path == "-") {
    return std::make_unique<AccessLog>(STDOUT_FILENO, /*owned=*/false);
  }
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
  if (descriptor < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--access-log ", path, ": ", std::strerror(errno)));
  }
  auto log = std::make_unique<AccessLog>(descriptor, /*owned=*/true);
  if (EndsInALine(path, descriptor)) {
    log->Write("");  // the first line of ours begins a new one
  }
  return log;
}

AccessLog::AccessLog(int descriptor, bool owned) : descriptor_(descriptor), owned_(owned) {
  writer_.emplace(descriptor, [] { CountLostLogLine(); });
}

AccessLog::~AccessLog() {
  writer_.reset();
  if (owned_) {
    close(descriptor_);
  }
}

void AccessLog::Write(std::string line) { writer_->Write(std::move(line)); }

}  // namespace hotlora
