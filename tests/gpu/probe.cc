#include "tests/gpu/probe.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "client/bench/statistics.h"

namespace hotlora {
Probe::Probe(Options options)
    : options_(std::move(options)), file_(open(options_.out.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) {
  if (file_ < 0) {
    throw std::runtime_error(absl::StrCat("cannot open ", options_.out, " for appending: ", std::strerror(errno)));
  }
}

Probe::~Probe() { close(file_); }

double Probe::Seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

double Probe::SecondsLeft() const {
  constexpr double kOwnShare = 0.9;
  return kOwnShare * options_.seconds - Seconds();
}

void Probe::SetDoing(absl::string_view what) {
  const std::lock_guard lock(mutex_);
  doing_ = std::string(what);
}

void Probe::AddFigure(absl::string_view name, absl::string_view unit, absl::Span<const double> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const Json figure = {{"name", std::string(name)},
                       {"unit", std::string(unit)},
                       {"median", Median({values.begin(), values.end()})},
                       {"low", *low},
                       {"high", *high},
                       {"repeats", values.size()}};
  const std::lock_guard lock(mutex_);
  figures_.push_back(figure);
  Write("figure", figure);
}

void Probe::AddFigure(absl::string_view name, absl::string_view unit, double value) {
  AddFigure(name, unit, absl::MakeConstSpan(&value, 1));
}

void Probe::AddCheck(const Check& check) {
  Json json = {{"name", check.name}, {"worst", nullptr}, {"tolerance", nullptr}, {"passed", check.passed}};
  if (check.worst.has_value()) {
    json["worst"] = *check.worst;
  }
  if (check.tolerance.has_value()) {
    json["tolerance"] = *check.tolerance;
  }
  if (!check.text.empty()) {
    json["text"] = check.text;
  }
  const std::lock_guard lock(mutex_);
  checks_.push_back(json);
  if (!check.passed) {
    failed_checks_.push_back(check.name);
  }
  Write("check", json);
}

void Probe::AddCheck(absl::string_view name, double worst, double tolerance) {
  AddCheck({std::string(name), worst, tolerance, worst <= tolerance, {}});
}

void Probe::AddCheck(absl::string_view name, bool passed) { AddCheck({std::string(name), {}, {}, passed, {}}); }

void Probe::LeaveOut(absl::string_view name, absl::string_view reason) {
  const Json part = {{"name", std::string(name)}, {"reason", std::string(reason)}};
  const std::lock_guard lock(mutex_);
  unavailable_.push_back(part);
  Write("part", part);
}

void Probe::AddNote(absl::string_view name, Json value) {
  const std::lock_guard lock(mutex_);
  Write("note", {{std::string(name), value}});
  notes_[std::string(name)] = std::move(value);
}

int Probe::Finish(absl::string_view status, absl::string_view reason) {
  const std::lock_guard lock(mutex_);
  if (exit_status_ >= 0) {
    return exit_status_;
  }
  std::string why(reason);
  if (status == "ok" && !failed_checks_.empty()) {
    status = "failed";
    why = absl::StrCat(failed_checks_.size(), " checks did not pass: ", absl::StrJoin(failed_checks_, ", "));
  }
  exit_status_ = status == "ok" ? 0 : status == "unavailable" ? 3 : 1;
  Json line = {{"stage", options_.stage}, {"status", std::string(status)}};
  if (!why.empty()) {
    line["reason"] = why;
  }
  line["seconds"] = Seconds();
  line["command"] = options_.command;
  line["device"] = options_.device;
  line["size"] = options_.tiny ? "tiny" : "full";
  line["figures"] = figures_;
  line["checks"] = checks_;
  line["unavailable"] = unavailable_;
  line["notes"] = notes_;
  WriteLine(line);
  return exit_status_;
}

int Probe::FinishFromOutside(absl::string_view reason) {
  std::string doing;
  {
    const std::lock_guard lock(mutex_);
    doing = doing_;
  }
  return Finish("failed", absl::StrCat(reason, " while ", doing));
}

void Probe::Write(absl::string_view kind, const Json& value) {
  if (exit_status_ < 0) {
    WriteLine({{"stage", options_.stage}, {std::string(kind), value}});
  }
}

// One call, so that a kill leaves whole lines. Texts of errors may hold any bytes. A file that takes no more ends the
// program: what it would find is lost.
void Probe::WriteLine(const Json& line) {
  const std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  if (write(file_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    std::cerr << "gpu_probe: cannot write to " << options_.out << ": " << std::strerror(errno) << "\n";
    std::_Exit(1);
  }
}

}  // namespace hotlora
