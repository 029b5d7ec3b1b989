#include "src/scheduler/warm_up.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/scheduler/image_run.h"

namespace hotlora {
namespace {

constexpr uint32_t kWarmUpSteps = 4;
// A machine this slow measures its baseline with the first step alone.
constexpr double kSlowStepSeconds = 2.0;

absl::Status MeasureBaseline(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics, bool cfg) {
  ImageJob job;
  DenoiseOptions& options = job.denoise;
  options.width = options.height = pipeline.info().native_size;
  options.steps = kWarmUpSteps;
  options.guidance_scale = cfg ? 5.0 : 1.0;
  const float size = static_cast<float>(options.width);
  options.size_ids = options.negative_size_ids = {size, size, 0, 0, size, size};
  job.prompts.negative_prompt = "";
  ABSL_ASSIGN_OR_RETURN(auto conditioning, memory.Call(TextWork(job.prompts), [&] {
    return pipeline.Encode(job.prompts, cfg, AdapterSet{}, ApplyMode::kMerged);
  }));
  ABSL_ASSIGN_OR_RETURN(auto row, pipeline.StartRow(options, 0, std::move(conditioning), AdapterSet{}, nullptr));
  std::vector<double> durations;
  while (!row->done()) {
    const bool first = row->steps_done() == 0;
    const Stopwatch stopwatch;
    ABSL_RETURN_IF_ERROR(memory.Call(StepWork(options), [&] { return pipeline.Step(BatchPlan{{row.get()}}); }));
    const double seconds = stopwatch.Seconds();
    // The first step pays for what is made once (kernels chosen, workspaces), so it counts only if it is all there
    // is.
    if (row->steps_done() == 2) {
      durations.clear();
    }
    durations.push_back(seconds);
    if (first && seconds > kSlowStepSeconds) {
      break;
    }
  }
  const auto median = durations.begin() + static_cast<std::ptrdiff_t>(durations.size() / 2);
  std::nth_element(durations.begin(), median, durations.end());
  StepShape shape;
  shape.width = options.width;
  shape.height = options.height;
  shape.rows = 1;
  shape.guided_rows = cfg ? 1 : 0;
  metrics.SetStepBaseline(shape, *median);
  if (cfg) {
    ABSL_RETURN_IF_ERROR(memory.Call(DecodeWork(job), [&] { return pipeline.Decode(*row); }).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WarmUp(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics) {
  const Stopwatch stopwatch;
  for (const bool cfg : {false, true}) {
    ABSL_RETURN_IF_ERROR(MeasureBaseline(pipeline, memory, metrics, cfg));
  }
  const double seconds = stopwatch.Seconds();
  metrics.SetStartUp(StartUpPhase::kWarmUp, seconds);
  LogInfo("warm-up took ", seconds, " s");
  return absl::OkStatus();
}

}  // namespace hotlora
