#include "client/control_arguments.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include <CLI/CLI.hpp>

#include "client/input_files.h"
#include "client/named_value.h"
#include "src/base/invalid_argument.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// NAME=FILE.
absl::Status AddControl(const std::string& text, v1::GenerateImagesRequest& request) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    return InvalidArgument("--control is \"", text, "\"; it is NAME=FILE");
  }
  v1::ControlRef* const control = request.add_controls();
  control->set_name(text.substr(0, equals));
  ABSL_ASSIGN_OR_RETURN(*control->mutable_image(), ReadPicture("--control", text.substr(equals + 1)));
  return absl::OkStatus();
}

// What follows "NAME=" in the value of an option about a control, and the first control of that name for which `is_set`
// is false.
template <typename IsSet>
absl::StatusOr<std::pair<v1::ControlRef*, std::string>> FindControl(absl::string_view flag, absl::string_view form,
                                                                    const std::string& text, IsSet is_set,
                                                                    v1::GenerateImagesRequest& request) {
  ABSL_ASSIGN_OR_RETURN(const NamedValue given, SplitNamed(flag, form, text));
  for (v1::ControlRef& control : *request.mutable_controls()) {
    if (control.name() == given.name && !is_set(control)) {
      return std::pair(&control, given.value);
    }
  }
  return InvalidArgument(flag, " is \"", text, "\", but no --control is \"", given.name,
                         "\", or each has its own already");
}

absl::Status SetScale(const std::string& text, v1::GenerateImagesRequest& request) {
  constexpr absl::string_view kFlag = "--control-scale", kForm = "NAME=SCALE";
  const auto is_set = [](const v1::ControlRef& control) { return control.has_scale(); };
  ABSL_ASSIGN_OR_RETURN(const auto found, FindControl(kFlag, kForm, text, is_set, request));
  double scale = 0;
  if (!absl::SimpleAtod(found.second, &scale)) {
    return WrongForm(kFlag, kForm, text);
  }
  found.first->set_scale(scale);
  return absl::OkStatus();
}

absl::Status SetRange(const std::string& text, v1::GenerateImagesRequest& request) {
  constexpr absl::string_view kFlag = "--control-range", kForm = "NAME=START:END";
  const auto is_set = [](const v1::ControlRef& control) { return control.has_start(); };
  ABSL_ASSIGN_OR_RETURN(const auto found, FindControl(kFlag, kForm, text, is_set, request));
  const std::pair<std::string, std::string> ends = absl::StrSplit(found.second, absl::MaxSplits(':', 1));
  double start = 0, end = 0;
  if (!absl::SimpleAtod(ends.first, &start) || !absl::SimpleAtod(ends.second, &end)) {
    return WrongForm(kFlag, kForm, text);
  }
  found.first->set_start(start);
  found.first->set_end(end);
  return absl::OkStatus();
}

absl::Status SetType(const std::string& text, v1::GenerateImagesRequest& request) {
  constexpr absl::string_view kFlag = "--control-type", kForm = "NAME=TYPE";
  const auto is_set = [](const v1::ControlRef& control) { return control.has_type(); };
  ABSL_ASSIGN_OR_RETURN(const auto found, FindControl(kFlag, kForm, text, is_set, request));
  uint32_t type = 0;
  if (!absl::SimpleAtoi(found.second, &type)) {
    return WrongForm(kFlag, kForm, text);
  }
  found.first->set_type(type);
  return absl::OkStatus();
}

}  // namespace

void AddControls(CLI::App& app, ControlOptions& options) {
  app.add_option("--control", options.controls,
                 "NAME=FILE of a ControlNet and its picture: edges, depth, a pose (repeatable)")
      ->allow_extra_args(false);
  app.add_option("--control-scale", options.scales,
                 "NAME=SCALE (repeatable): how strongly a --control acts, 0 to 4; if a name comes several times, the "
                 "first is for the first of them")
      ->allow_extra_args(false);
  app.add_option("--control-range", options.ranges,
                 "NAME=START:END (repeatable): the part of the steps in which a --control acts, from 0 to 1")
      ->allow_extra_args(false);
  app.add_option("--control-type", options.types,
                 "NAME=TYPE (repeatable): what the picture of a union net's --control is, by its number")
      ->allow_extra_args(false);
}

absl::Status FinishControls(const ControlOptions& options, v1::GenerateImagesRequest& request) {
  for (const std::string& control : options.controls) {
    ABSL_RETURN_IF_ERROR(AddControl(control, request));
  }
  for (const std::string& scale : options.scales) {
    ABSL_RETURN_IF_ERROR(SetScale(scale, request));
  }
  for (const std::string& range : options.ranges) {
    ABSL_RETURN_IF_ERROR(SetRange(range, request));
  }
  for (const std::string& type : options.types) {
    ABSL_RETURN_IF_ERROR(SetType(type, request));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
