#include "client/inspection_report.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

#include "src/base/error_details.h"

namespace hotlora {
namespace {

// A file's own words may hold what a terminal obeys.
std::string Printable(absl::string_view text) { return absl::Utf8SafeCHexEscape(text); }

void AddLine(std::string& text, absl::string_view name, absl::string_view value) {
  if (!value.empty()) {
    absl::StrAppendFormat(&text, "%-11s %s\n", name, value);
  }
}

std::string ModulesText(const AdapterInspection& inspection) {
  std::vector<std::string> parts;
  for (const auto& [component, count] : inspection.modules_by_component) {
    parts.push_back(absl::StrCat(component, " ", count));
  }
  return absl::StrCat(inspection.matched_modules, " (", absl::StrJoin(parts, ", "), ")",
                      inspection.changed_biases > 0 ? absl::StrCat(", biases of ", inspection.changed_biases) : "");
}

std::string TrainedOn(const AdapterMetadata& metadata) {
  return metadata.base_model.empty() || metadata.architecture.empty()
             ? Printable(metadata.base_model + metadata.architecture)
             : Printable(absl::StrCat(metadata.base_model, " (", metadata.architecture, ")"));
}

}  // namespace

std::string InspectionText(const AdapterInspection& inspection, const std::string& file, const std::string& model) {
  std::string text;
  AddLine(text, "file", Printable(file));
  AddLine(text, "sha256", inspection.content_sha256);
  AddLine(text, "size", absl::StrFormat("%.1f MiB, %d tensors", inspection.bytes / 1048576.0, inspection.tensors));
  if (!inspection.format.empty()) {
    AddLine(text, "format",
            absl::StrCat(inspection.format,
                         inspection.rank_max > 0 ? absl::StrCat(", rank up to ", inspection.rank_max) : ""));
    AddLine(text, "modules", ModulesText(inspection));
  }
  AddLine(text, "trained on", TrainedOn(inspection.metadata));
  AddLine(text, "title", Printable(inspection.metadata.title));
  AddLine(text, "trigger", Printable(inspection.metadata.trigger_phrase));
  AddLine(text, "tags", Printable(absl::StrJoin(inspection.metadata.tags, ", ")));
  for (const std::string& key : inspection.unmatched_keys) {
    AddLine(text, "unmatched", Printable(key));
  }
  for (const std::string& note : inspection.notes) {
    AddLine(text, "note", Printable(note));
  }
  if (inspection.verdict.ok()) {
    AddLine(text, "verdict", absl::StrCat("fits ", Printable(model)));
    return text;
  }
  AddLine(text, "verdict", absl::StrCat("refused for ", Printable(model), ": ", inspection.verdict.message()));
  AddLine(text, "reason", GetErrorDetails(inspection.verdict).reason);
  AddLine(text, "", inspection.takes_unmatched ? "a server with --allow-unmatched-keys takes the rest" : "");
  return text;
}

nlohmann::json InspectionJson(const AdapterInspection& inspection, const std::string& file, const std::string& model) {
  nlohmann::json json = {{"file", file},
                         {"model", model},
                         {"content_sha256", inspection.content_sha256},
                         {"bytes", inspection.bytes},
                         {"tensors", inspection.tensors},
                         {"fits", inspection.verdict.ok()},
                         {"format", inspection.format},
                         {"rank_max", inspection.rank_max},
                         {"matched_modules", inspection.matched_modules},
                         {"modules", inspection.modules_by_component},
                         {"changed_biases", inspection.changed_biases},
                         {"unmatched_keys", inspection.unmatched_keys},
                         {"notes", inspection.notes},
                         {"architecture", inspection.metadata.architecture},
                         {"base_model", inspection.metadata.base_model},
                         {"title", inspection.metadata.title},
                         {"trigger_phrase", inspection.metadata.trigger_phrase},
                         {"tags", inspection.metadata.tags}};
  if (!inspection.verdict.ok()) {
    json["error"] = {{"reason", GetErrorDetails(inspection.verdict).reason},
                     {"message", std::string(inspection.verdict.message())},
                     {"fits_with_allow_unmatched_keys", inspection.takes_unmatched}};
  }
  return json;
}

}  // namespace hotlora
