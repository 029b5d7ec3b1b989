#ifndef HOTLORA_TESTS_GPU_PROBE_H_
#define HOTLORA_TESTS_GPU_PROBE_H_

// gpu_probe runs one stage of the GPU tests and measurements and writes JSON lines to the end of a file. A stage writes
// one line for each thing it found, at once, and its own line when it ends. So a reader that finds a stage's own line
// ignores its other lines, and if the program was killed, the other lines are what was found until then.
//
// The stage's own line:
//
//   {"stage": "load",            a name of stages.h
//    "status": "ok",             "failed": an error, or a check that did not pass; "unavailable": the machine lacks
//                                what the stage needs
//    "reason": "...",            why it is not "ok"; missing if it is
//    "seconds": 1.5,             how long the stage took
//    "command": "gpu_probe ...", the command line, which is that of every figure
//    "device": "cuda:0", "size": "full",
//    "figures": [FIGURE...], "checks": [CHECK...], "unavailable": [PART...], "notes": {NAME: any value...}}
//
//   FIGURE  {"name": "matmul.float16", "unit": "TFLOP/s", "median": 701.5, "low": 699, "high": 704, "repeats": 9}
//           low and high are the least and the greatest of the repeats
//   CHECK   {"name": "unet.output", "worst": 1e-6, "tolerance": 1e-5, "passed": true, "text": "..."}
//           worst and tolerance are null if the check is a plain yes or no; text, missing if empty, says more
//   PART    {"name": "attention.cudnn", "reason": "..."}: what the machine or the time limit does not allow
//
// The other lines: {"stage": "load", "figure": FIGURE}, and the same with "check", "part", and "note": {NAME: value}.
// A number that is not finite is null.

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include <c10/core/Device.h>
#include <nlohmann/json.hpp>

namespace hotlora {

// What a stage is asked to do, and where it writes what it finds.
// Threads  thread-safe
class Probe {
 public:
  struct Options {
    std::string stage;
    std::string command;
    std::string device;  // as it was asked for
    bool tiny = false;   // the smallest shapes that run the same code, for a CPU, a rehearsal or compute-sanitizer
    double seconds = 0;  // the stage's time limit
    std::string out;     // the file of lines
  };

  // Throws std::runtime_error if the file cannot be opened for appending.
  explicit Probe(Options options);
  ~Probe();
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  // Where the stage computes. Set before the stage begins.
  c10::Device device() const { return device_; }
  void SetDevice(c10::Device device) { device_ = device; }

  const std::string& device_name() const { return options_.device; }
  bool tiny() const { return options_.tiny; }

  // Until nine tenths of the time limit; below 0 after that. A stage looks at it before each part and leaves out the
  // rest (LeaveOut). At the whole limit the program ends, and the stage is "failed" (stage_watch.h).
  double SecondsLeft() const;
  double limit() const { return options_.seconds; }

  // What the stage does now, for the reason of one that is ended from outside.
  void SetDoing(absl::string_view what);

  // One figure of repeated values in `unit`. REQUIRES: at least one value.
  void AddFigure(absl::string_view name, absl::string_view unit, absl::Span<const double> values);
  void AddFigure(absl::string_view name, absl::string_view unit, double value);

  struct Check {
    std::string name;
    std::optional<double> worst, tolerance;
    bool passed;
    std::string text;
  };
  // One that does not pass makes the stage "failed".
  void AddCheck(const Check& check);
  // Passes if worst <= tolerance. NaN does not pass.
  void AddCheck(absl::string_view name, double worst, double tolerance);
  // A plain yes or no.
  void AddCheck(absl::string_view name, bool passed);

  // What the stage could not measure, and why. The stage can still be "ok".
  void LeaveOut(absl::string_view name, absl::string_view reason);

  void AddNote(absl::string_view name, nlohmann::ordered_json value);

  // Writes the stage's own line, once; later calls do nothing. With checks that did not pass, "ok" becomes "failed".
  // Returns the program's exit status: 0 ok, 1 failed, 3 unavailable.
  int Finish(absl::string_view status, absl::string_view reason);
  // As "failed", and the reason says what the stage was doing. For another thread than the stage's.
  int FinishFromOutside(absl::string_view reason);

 private:
  using Json = nlohmann::ordered_json;

  double Seconds() const;
  void Write(absl::string_view kind, const Json& value);
  void WriteLine(const Json& line);

  const Options options_;
  c10::Device device_ = c10::Device(c10::kCPU);
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  int file_;
  std::mutex mutex_;
  Json figures_ = Json::array(), checks_ = Json::array(), unavailable_ = Json::array(), notes_ = Json::object();
  std::vector<std::string> failed_checks_;
  std::string doing_ = "it started";
  int exit_status_ = -1;  // -1: not finished
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_GPU_PROBE_H_
