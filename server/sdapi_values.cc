#include "server/sdapi_values.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <google/protobuf/util/json_util.h>

#include "server/proto_mapping.h"
#include "server/status_mapping.h"
#include "src/base/enum_size.h"
#include "src/request/sampler_names.h"

namespace hotlora {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

bool IsOff(const Value& value) {
  switch (value.kind_case()) {
    case Value::kListValue:
      return std::all_of(value.list_value().values().begin(), value.list_value().values().end(), IsOff);
    case Value::kStructValue:
      return value.struct_value().fields().empty();
    case Value::kBoolValue:
      return !value.bool_value();
    case Value::kNumberValue:
      return value.number_value() == 0;
    case Value::kStringValue:
      return value.string_value().empty();
    default:
      return true;
  }
}

}  // namespace

std::vector<std::pair<absl::string_view, const Value*>> InOrder(const Struct& entries) {
  std::vector<std::pair<absl::string_view, const Value*>> sorted;
  for (const auto& [name, value] : entries.fields()) {
    sorted.emplace_back(name, &value);
  }
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

std::string ToText(const Value& value) {
  std::string text;
  const bool is_json = google::protobuf::util::MessageToJsonString(value, &text).ok();  // NaN is none
  return CleanText(is_json ? text : value.ShortDebugString(), 100);
}

bool IsIdle(const Value& script) {
  if (script.kind_case() != Value::kStructValue) {
    return IsOff(script);
  }
  const auto args = script.struct_value().fields().find("args");
  return args == script.struct_value().fields().end() || IsOff(args->second);
}

std::string WithSdapiNames(absl::string_view text) {
  std::vector<std::pair<std::string, std::string>> names;
  for (const Sampler sampler : AllOf<Sampler>()) {
    names.emplace_back(v1::Sampler_Name(ToProto(sampler)), SamplerName(sampler));
  }
  for (const NoiseScheduleKind schedule : AllOf<NoiseScheduleKind>()) {
    names.emplace_back(v1::NoiseSchedule_Name(ToProto(schedule)), ScheduleName(schedule));
  }
  return absl::StrReplaceAll(text, names);
}

NamedSampler ReadSamplerName(absl::string_view name) {
  NamedSampler named;
  for (const NoiseScheduleKind schedule : AllOf<NoiseScheduleKind>()) {
    const std::string end = absl::StrCat(" ", ScheduleName(schedule));
    if (absl::EndsWithIgnoreCase(name, end)) {
      name.remove_suffix(end.size());
      named.schedule = schedule;
      break;
    }
  }
  named.sampler = FindSampler(name);
  return named;
}

std::string DecodeImageText(absl::string_view text, std::string& fault) {
  constexpr absl::string_view kMark = ";base64,";
  if (absl::StartsWithIgnoreCase(text, "data:")) {
    const size_t comma = text.find(',');
    const absl::string_view head = text.substr(0, comma == absl::string_view::npos ? 0 : comma + 1);
    if (!absl::EndsWithIgnoreCase(head, kMark)) {
      fault = "is a data URI that is not in base64; allowed is data:TYPE;base64,DATA";
      return "";
    }
    text.remove_prefix(head.size());
  }
  std::string bytes;
  if (!absl::Base64Unescape(text, &bytes)) {
    fault = "is not base64; allowed are an image's bytes in base64, alone or as a data URI";
    return "";
  }
  if (bytes.empty()) {
    fault = "is an image of 0 bytes";
  }
  return bytes;
}

}  // namespace hotlora
