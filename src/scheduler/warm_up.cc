#include "src/scheduler/warm_up.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "src/base/logging.h"
#include "src/base/status_macros.h"
#include "src/base/stopwatch.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr uint32_t kWarmUpSteps = 4;
// At the native size; at smaller ones its share by pixels. A machine whose steps take longer is slow.
constexpr double kSlowStepSeconds = 2.0;

// An image of size x size pixels.
ImageJob WarmUpJob(uint32_t size, bool cfg, uint32_t steps) {
  ImageJob job;
  DenoiseOptions& options = job.denoise;
  options.width = options.height = size;
  options.steps = steps;
  options.guidance_scale = cfg ? 5.0 : 1.0;
  const auto side = static_cast<float>(size);
  options.size_ids = options.negative_size_ids = {side, side, 0, 0, side, side};
  job.prompts.negative_prompt = "";
  return job;
}

// Steps of one image, and with guidance its decode. Returns whether the machine is slow. If it is known to be, there is
// one step; if it shows, there are two.
absl::StatusOr<bool> MeasureBaseline(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics,
                                     DecodeLine& decode_line, CostBook& costs, uint32_t size, bool cfg,
                                     bool known_slow) {
  const ImageJob job = WarmUpJob(size, cfg, kWarmUpSteps);
  const DenoiseOptions& options = job.denoise;
  ABSL_ASSIGN_OR_RETURN(auto conditioning, memory.Call(TextWork(job.prompts), [&] {
    return pipeline.Encode(job.prompts, cfg, AdapterSet{}, ApplyMode::kMerged);
  }));
  ABSL_ASSIGN_OR_RETURN(
      auto row, pipeline.StartRow(options, 0, std::move(conditioning), AdapterSet{}, nullptr, nullptr, nullptr));
  const double side = static_cast<double>(size) / pipeline.info().native_size;
  bool slow = known_slow;
  std::vector<double> durations;
  do {
    const Stopwatch stopwatch;
    ABSL_RETURN_IF_ERROR(memory.Call(StepWork(options), [&] { return pipeline.Step(BatchPlan{{row.get()}}); }));
    const double seconds = stopwatch.Seconds();
    // The first step pays for what is made once (kernels chosen, workspaces), so it counts only if it is all there is.
    if (row->steps_done() == 2) {
      durations.clear();
      slow = seconds > kSlowStepSeconds * side * side;
    }
    durations.push_back(seconds);
  } while (!row->done() && !slow);
  const auto median = durations.begin() + static_cast<std::ptrdiff_t>(durations.size() / 2);
  std::nth_element(durations.begin(), median, durations.end());
  StepShape shape;
  shape.width = options.width;
  shape.height = options.height;
  shape.rows = 1;
  shape.guided_rows = cfg ? 1 : 0;
  metrics.SetStepBaseline(shape, *median);
  costs.AddStep({shape.width, shape.height, shape.rows + shape.guided_rows, /*side=*/false}, *median);
  if (cfg) {
    ABSL_RETURN_IF_ERROR(decode_line.WarmUp(job, *row));
  }
  return slow;
}

// Two steps of each number of the network's rows from 3 on, the second for its cost: an image under guidance has two,
// and one without makes the odd numbers. The work grows with the square of the largest number, hence the limit.
absl::Status StepEachRowCount(Pipeline& pipeline, MemoryAdmission& memory, CostBook& costs, uint32_t max_batch) {
  const uint32_t most = std::min(2 * max_batch, kMostWarmRows);
  if (most < 3) {
    return absl::OkStatus();
  }
  std::vector<std::unique_ptr<Row>> rows;  // the first is without guidance
  for (const bool cfg : {false, true}) {
    const ImageJob job = WarmUpJob(pipeline.info().native_size, cfg, /*steps=*/2 * most);
    ABSL_ASSIGN_OR_RETURN(const auto conditioning, memory.Call(TextWork(job.prompts), [&] {
      return pipeline.Encode(job.prompts, cfg, AdapterSet{}, ApplyMode::kMerged);
    }));
    while (rows.size() < (cfg ? most / 2 + 1 : 1)) {
      ABSL_ASSIGN_OR_RETURN(auto row,
                            pipeline.StartRow(job.denoise, 0, conditioning, AdapterSet{}, nullptr, nullptr, nullptr));
      rows.push_back(std::move(row));
    }
  }
  for (uint32_t count = 3; count <= most; ++count) {
    BatchPlan plan;
    for (size_t i = count % 2 == 1 ? 0 : 1; i <= count / 2; ++i) {
      plan.rows.push_back(rows[i].get());
    }
    MemoryWork work = StepWork(rows.front()->denoise());
    work.rows = count;
    const auto step = [&] { return memory.Call(work, [&] { return pipeline.Step(plan); }); };
    const absl::Status status = step();
    if (absl::IsResourceExhausted(status)) {
      LogInfo("there is memory for ", count - 1, " rows of the network in a step at the model's native size");
      return absl::OkStatus();
    }
    ABSL_RETURN_IF_ERROR(status);
    const Stopwatch stopwatch;
    ABSL_RETURN_IF_ERROR(step());
    const DenoiseOptions& options = rows.front()->denoise();
    costs.AddStep({options.width, options.height, count, /*side=*/false}, stopwatch.Seconds());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status WarmUp(Pipeline& pipeline, MemoryAdmission& memory, Metrics& metrics, DecodeLine& decode_line,
                    CostBook& costs, uint32_t max_batch) {
  const Stopwatch stopwatch;
  const auto measure = [&](uint32_t size, bool cfg, bool known_slow) {
    return MeasureBaseline(pipeline, memory, metrics, decode_line, costs, size, cfg, known_slow);
  };
  const bool on_cpu = pipeline.info().device == "cpu";
  const uint32_t native = pipeline.info().native_size;
  const uint32_t half = native / 2 / kSideMultiple * kSideMultiple;
  // A GPU chooses kernels for each size and number of rows. A CPU's kernels serve all of them, so it begins with half
  // the size: if it is slow, requests do not wait for steps of the native size.
  uint32_t size = on_cpu && half >= kMinSide ? half : native;
  ABSL_ASSIGN_OR_RETURN(bool slow, measure(size, /*cfg=*/false, /*known_slow=*/false));
  if (size != native && !slow) {
    const absl::StatusOr<bool> at_native = measure(native, /*cfg=*/false, /*known_slow=*/false);
    if (at_native.ok()) {
      size = native;
      slow = *at_native;
    } else if (absl::IsResourceExhausted(at_native.status())) {
      LogWarning("the warm-up stays at ", size, "x", size, ": ", at_native.status().message());
    } else {
      return at_native.status();
    }
  }
  ABSL_RETURN_IF_ERROR(measure(size, /*cfg=*/true, slow).status());
  if (!on_cpu) {
    ABSL_RETURN_IF_ERROR(StepEachRowCount(pipeline, memory, costs, max_batch));
  }
  const double seconds = stopwatch.Seconds();
  metrics.SetStartUp(StartUpPhase::kWarmUp, seconds);
  LogInfo("warm-up took ", seconds, " s");
  return absl::OkStatus();
}

}  // namespace hotlora
