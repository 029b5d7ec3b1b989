#ifndef HOTLORA_TESTS_FAKES_FAKE_PIPELINE_H_
#define HOTLORA_TESTS_FAKES_FAKE_PIPELINE_H_

// A pipeline without networks: each image is filled with the low byte of its seed. It records what it was asked, can be
// held at a step until the test lets it go on, and counts what is alive.

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "src/base/error_details.h"
#include "src/pipeline/pipeline.h"

namespace hotlora {

class FakePipeline : public Pipeline {
 public:
  static constexpr uint32_t kModules = 3;
  static thread_local inline int64_t taken_bytes = 0;  // by the last call on this thread; what its meter shows

  // What outlives the pipeline, which the engine owns.
  struct Levers {
    absl::Mutex mu;
    bool hold_steps ABSL_GUARDED_BY(mu) = false;    // steps wait while this is true
    uint32_t steps_held ABSL_GUARDED_BY(mu) = 0;    // steps that wait now
    uint32_t step_tickets ABSL_GUARDED_BY(mu) = 0;  // steps that may pass while the others are held
    uint32_t steps_run ABSL_GUARDED_BY(mu) = 0;     // evaluations
    uint32_t largest_plan ABSL_GUARDED_BY(mu) = 0;
    std::vector<std::vector<uint64_t>> plans ABSL_GUARDED_BY(mu);  // the seeds of each step's rows, failed steps too
    std::optional<uint64_t> guilty_seed ABSL_GUARDED_BY(mu);       // a step with this row fails with next_step_error
    std::optional<uint32_t> most_rows ABSL_GUARDED_BY(mu);         // a step with more rows runs out of memory
    bool unshareable ABSL_GUARDED_BY(mu) = false;                  // no two sets share a step
    std::set<std::string> unshareable_pair ABSL_GUARDED_BY(mu);    // sets whose rows share no step, by fingerprint
    std::vector<std::vector<std::string>> plan_sets ABSL_GUARDED_BY(mu);  // the sets of each step's rows, as in plans
    uint32_t side_steps ABSL_GUARDED_BY(mu) = 0;                          // evaluations in side mode
    absl::Status next_init_error ABSL_GUARDED_BY(mu);                     // of EncodeInit
    absl::Status next_row_error ABSL_GUARDED_BY(mu);                      // of StartRow
    absl::Status next_step_error ABSL_GUARDED_BY(mu);
    absl::Status next_decode_error ABSL_GUARDED_BY(mu);
    std::vector<std::string> applied ABSL_GUARDED_BY(mu);  // fingerprints, as they changed
    std::vector<std::string> prompts ABSL_GUARDED_BY(mu);
    std::vector<std::pair<uint32_t, uint32_t>> init_sizes ABSL_GUARDED_BY(mu);     // of the init images encoded
    std::vector<std::pair<uint32_t, uint32_t>> control_sizes ABSL_GUARDED_BY(mu);  // of the pictures embedded
    std::vector<double> control_scales ABSL_GUARDED_BY(mu);
    std::vector<size_t> image_prompt_pictures ABSL_GUARDED_BY(mu);  // how many each image prompt had
    ImagePromptBytes image_prompt_bytes ABSL_GUARDED_BY(mu);
    uint32_t image_prompt_side ABSL_GUARDED_BY(mu) = 0;           // of the last one's first picture
    std::vector<PromptEmbedding> embeddings ABSL_GUARDED_BY(mu);  // of the last prompts
    bool corrupt ABSL_GUARDED_BY(mu) = false;                     // the second module
    bool irreparable ABSL_GUARDED_BY(mu) = false;                 // a corrupt module stays so
    int64_t available_memory ABSL_GUARDED_BY(mu) = int64_t{1} << 40;
    int64_t cached_memory ABSL_GUARDED_BY(mu) = 0;  // available once it is given back
    int64_t pixel_bytes ABSL_GUARDED_BY(mu) = 0;  // that steps take for a pixel of a network row; decodes, inits alike
    ControlBytes control_bytes ABSL_GUARDED_BY(mu);  // of images of any size
    uint32_t tiled_decodes ABSL_GUARDED_BY(mu) = 0;
    uint32_t tiled_inits ABSL_GUARDED_BY(mu) = 0;
    uint32_t modules_verified ABSL_GUARDED_BY(mu) = 0;
    enum class Call { kNone, kApply, kEncode, kEncodeInit, kDecode, kVerify };
    Call held_call ABSL_GUARDED_BY(mu) = Call::kNone;    // calls of that kind wait
    std::multiset<Call> calls_held ABSL_GUARDED_BY(mu);  // calls that wait now
    std::atomic<int64_t> kept_bytes = 0;                 // that a row's first step takes and keeps
    std::atomic<int> live_rows = 0;
    std::atomic<int> live_conditionings = 0;
    std::atomic<int> live_inits = 0;
    std::atomic<int> live_controls = 0;
    std::atomic<int> live_image_prompts = 0;

    void Hold() {
      absl::MutexLock lock(&mu);
      hold_steps = true;
    }
    void AwaitHeld() {
      absl::MutexLock lock(&mu);
      mu.Await(absl::Condition(
          +[](Levers* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return l->steps_held > 0; }, this));
    }
    void LetGo() {
      absl::MutexLock lock(&mu);
      hold_steps = false;
      held_call = Call::kNone;
    }
    void Hold(Call call) {
      absl::MutexLock lock(&mu);
      held_call = call;
    }
    void WaitIfHeld(Call call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
      calls_held.insert(call);
      const auto let_go = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return held_call != call; };
      mu.Await(absl::Condition(&let_go));
      calls_held.erase(calls_held.find(call));
    }
    void AwaitHeld(Call call) {
      absl::MutexLock lock(&mu);
      const auto held = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return calls_held.count(call) > 0; };
      mu.Await(absl::Condition(&held));
    }
    // While steps are held: lets the one that waits pass, and waits until the next one is held.
    void StepOnce() {
      absl::MutexLock lock(&mu);
      const uint32_t before = steps_run;
      ++step_tickets;
      const auto next_held = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return steps_run > before && steps_held > 0; };
      mu.Await(absl::Condition(&next_held));
    }
    std::vector<uint64_t> LastPlan() {
      absl::MutexLock lock(&mu);
      return plans.back();
    }
  };

  explicit FakePipeline(std::shared_ptr<Levers> levers) : levers_(std::move(levers)) {
    info_.name = "fake";
    info_.sha256 = std::string(64, 'f');
    info_.dtype = "float32";
    info_.device = "cpu";
    info_.native_size = 16;
    info_.max_clip_skip = 2;
    info_.unet_modules = {"conv_in", "down_blocks.1.resnets.0.conv1", "down_blocks.10.conv",
                          "mid_block.resnets.0.conv1"};
    info_.cross_attentions = {"down_blocks.1.attentions.0.transformer_blocks.0.attn2",
                              "mid_block.attentions.0.transformer_blocks.0.attn2"};
  }

  const ModelInfo& info() const override { return info_; }

  absl::StatusOr<SwapReport> Apply(const AdapterSet& set, ApplyMode mode) override {
    SwapReport report;
    if (set.Fingerprint() == applied_ && mode == mode_) {
      return report;
    }
    applied_ = set.Fingerprint();
    mode_ = mode;
    report.changed = true;
    report.modules_merged = static_cast<uint32_t>(set.adapters.size());
    report.modules_restored = 1;
    absl::MutexLock lock(&levers_->mu);
    levers_->WaitIfHeld(Levers::Call::kApply);
    levers_->applied.push_back(applied_);
    return report;
  }

  absl::StatusOr<std::shared_ptr<const Conditioning>> Encode(const Prompts& prompts, bool negative,
                                                             const AdapterSet& set, ApplyMode mode) override {
    absl::MutexLock lock(&levers_->mu);
    levers_->WaitIfHeld(Levers::Call::kEncode);
    levers_->prompts.push_back(prompts.prompt);
    levers_->embeddings = prompts.embeddings;
    return std::make_shared<const FakeConditioning>(levers_);
  }

  bool CanShareStep(const AdapterSet& a, const AdapterSet& b) const override {
    const std::set<std::string> pair = {a.Fingerprint(), b.Fingerprint()};
    absl::MutexLock lock(&levers_->mu);
    return !levers_->unshareable && pair != levers_->unshareable_pair;
  }

  absl::StatusOr<std::shared_ptr<const InitLatents>> EncodeInit(const InitPicture& picture, VaeForm form) override {
    absl::MutexLock lock(&levers_->mu);
    levers_->WaitIfHeld(Levers::Call::kEncodeInit);
    if (absl::Status error = std::exchange(levers_->next_init_error, absl::OkStatus()); !error.ok()) {
      return error;
    }
    taken_bytes = levers_->pixel_bytes * picture.image.width * picture.image.height / (form == VaeForm::kTiled ? 2 : 1);
    levers_->tiled_inits += form == VaeForm::kTiled ? 1 : 0;
    levers_->init_sizes.emplace_back(picture.image.width, picture.image.height);
    return std::make_shared<const FakeInit>(levers_);
  }

  absl::StatusOr<std::shared_ptr<const Controls>> EmbedControls(absl::Span<const ControlInput> controls) override {
    absl::MutexLock lock(&levers_->mu);
    auto made = std::make_shared<FakeControls>(levers_);
    taken_bytes =
        static_cast<int64_t>(controls.size()) * levers_->control_bytes.hint + levers_->control_bytes.embedding;
    for (const ControlInput& control : controls) {
      made->ranges.push_back(control.range);
      levers_->control_sizes.emplace_back(control.picture.width, control.picture.height);
      levers_->control_scales.push_back(control.scale);
    }
    return made;
  }

  absl::StatusOr<std::shared_ptr<const ImagePrompts>> EncodeImagePrompts(const ImagePromptInputs& inputs) override {
    absl::MutexLock lock(&levers_->mu);
    for (const ImagePromptInput& prompt : inputs.prompts) {
      levers_->image_prompt_pictures.push_back(prompt.pictures.size());
      levers_->image_prompt_side = prompt.pictures.empty() ? 0 : prompt.pictures.front().width;
    }
    return std::make_shared<const FakeImagePrompts>(levers_);
  }

  absl::StatusOr<std::unique_ptr<Row>> StartRow(const DenoiseOptions& options, uint64_t seed,
                                                std::shared_ptr<const Conditioning> conditioning,
                                                AdapterSchedule adapters, std::shared_ptr<const InitLatents> init,
                                                std::shared_ptr<const Controls> controls,
                                                std::shared_ptr<const ImagePrompts> image_prompts) override {
    {
      absl::MutexLock lock(&levers_->mu);
      if (!levers_->next_row_error.ok()) {
        return std::exchange(levers_->next_row_error, absl::OkStatus());
      }
    }
    return std::make_unique<FakeRow>(levers_, options, seed, std::move(conditioning), std::move(adapters),
                                     std::move(init), std::move(controls), std::move(image_prompts));
  }

  // One pixel of the steps done.
  absl::StatusOr<RgbImage> Preview(const Row& row) override {
    return RgbImage{1, 1, std::vector<uint8_t>(3, static_cast<uint8_t>(row.steps_done()))};
  }

  absl::Status Step(const BatchPlan& plan) override {
    absl::MutexLock lock(&levers_->mu);
    std::vector<uint64_t> seeds;
    std::vector<std::string> sets;
    taken_bytes = 0;
    for (const Row* row : plan.rows) {
      const auto& fake = static_cast<const FakeRow&>(*row);
      seeds.push_back(fake.seed);
      sets.push_back(fake.next_adapters().fingerprint);
      const int64_t rows = fake.options.cfg() ? 2 : 1;
      taken_bytes += levers_->pixel_bytes * fake.options.width * fake.options.height * rows + fake.bytes_to_keep();
      taken_bytes += levers_->control_bytes.outputs * fake.controls_at(fake.evaluated) * rows;
    }
    levers_->plans.push_back(seeds);
    levers_->plan_sets.push_back(sets);
    ++levers_->steps_held;
    levers_->mu.Await(absl::Condition(
        +[](Levers* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return !l->hold_steps || l->step_tickets > 0; },
        levers_.get()));
    --levers_->steps_held;
    levers_->step_tickets -= levers_->step_tickets > 0 ? 1 : 0;
    ++levers_->steps_run;
    if (plan.rows.size() > levers_->most_rows.value_or(plan.rows.size())) {
      return MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "too many rows");
    }
    if (levers_->guilty_seed.has_value()) {
      if (std::find(seeds.begin(), seeds.end(), *levers_->guilty_seed) != seeds.end()) {
        return levers_->next_step_error;
      }
    } else if (absl::Status error = std::exchange(levers_->next_step_error, absl::OkStatus()); !error.ok()) {
      return error;
    }
    levers_->side_steps += plan.mode == ApplyMode::kSide ? 1 : 0;
    levers_->largest_plan = std::max(levers_->largest_plan, static_cast<uint32_t>(plan.rows.size()));
    for (Row* row : plan.rows) {
      ++static_cast<FakeRow*>(row)->evaluated;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<RgbImage> Decode(const Row& row, VaeForm form) override {
    absl::MutexLock lock(&levers_->mu);
    levers_->WaitIfHeld(Levers::Call::kDecode);
    if (absl::Status error = std::exchange(levers_->next_decode_error, absl::OkStatus()); !error.ok()) {
      return error;
    }
    const auto& fake = static_cast<const FakeRow&>(row);
    taken_bytes = levers_->pixel_bytes * fake.options.width * fake.options.height / (form == VaeForm::kTiled ? 2 : 1);
    levers_->tiled_decodes += form == VaeForm::kTiled ? 1 : 0;
    const size_t bytes = size_t{fake.options.width} * fake.options.height * 3;
    return RgbImage{fake.options.width, fake.options.height,
                    std::vector<uint8_t>(bytes, static_cast<uint8_t>(fake.seed))};
  }

  absl::StatusOr<BaseReport> VerifyNextModule() override {
    absl::MutexLock lock(&levers_->mu);
    levers_->WaitIfHeld(Levers::Call::kVerify);
    BaseReport check;
    check.modules_checked = 1;
    const bool corrupt = levers_->modules_verified++ % kModules == 1 && levers_->corrupt;
    if (corrupt) {
      levers_->corrupt = levers_->irreparable;
      check.mismatches = 1;
      check.repaired = levers_->irreparable ? 0 : 1;
      check.intact = !levers_->irreparable;
    }
    return check;
  }
  uint32_t module_count() const override { return kModules; }
  const std::vector<MemoryArea>& memory() const override { return memory_; }

  int64_t TiledDecodeBytes(uint32_t width, uint32_t height) const override { return TiledBytes(width, height); }
  int64_t TiledEncodeBytes(uint32_t width, uint32_t height) const override { return TiledBytes(width, height); }

  ControlBytes ControlBytesOf(uint32_t, uint32_t) const override {
    absl::MutexLock lock(&levers_->mu);
    return levers_->control_bytes;
  }

  ImagePromptBytes ImagePromptBytesOf(const ImagePromptInputs&) const override {
    absl::MutexLock lock(&levers_->mu);
    return levers_->image_prompt_bytes;
  }

  int64_t AvailableMemory() const override {
    absl::MutexLock lock(&levers_->mu);
    return levers_->available_memory;
  }
  void ReleaseCachedMemory() const override {
    absl::MutexLock lock(&levers_->mu);
    levers_->available_memory += std::exchange(levers_->cached_memory, 0);
  }
  std::unique_ptr<PeakMeter> MeasurePeak() const override { return std::make_unique<FakeMeter>(); }

 private:
  // Half of what the whole picture takes.
  int64_t TiledBytes(uint32_t width, uint32_t height) const {
    absl::MutexLock lock(&levers_->mu);
    return levers_->pixel_bytes * width * height / 2;
  }

  struct FakeConditioning : Conditioning {
    explicit FakeConditioning(std::shared_ptr<Levers> l) : levers(std::move(l)) { ++levers->live_conditionings; }
    ~FakeConditioning() override { --levers->live_conditionings; }
    bool was_kept() const override { return false; }
    std::shared_ptr<Levers> levers;
  };

  struct FakeMeter : PeakMeter {
    FakeMeter() { taken_bytes = 0; }
    int64_t bytes() const override { return taken_bytes; }
  };

  struct FakeInit : InitLatents {
    explicit FakeInit(std::shared_ptr<Levers> l) : levers(std::move(l)) { ++levers->live_inits; }
    ~FakeInit() override { --levers->live_inits; }
    std::shared_ptr<Levers> levers;
  };

  struct FakeControls : Controls {
    explicit FakeControls(std::shared_ptr<Levers> l) : levers(std::move(l)) { ++levers->live_controls; }
    ~FakeControls() override { --levers->live_controls; }
    std::shared_ptr<Levers> levers;
    std::vector<EvaluationRange> ranges;
  };

  struct FakeImagePrompts : ImagePrompts {
    explicit FakeImagePrompts(std::shared_ptr<Levers> l) : levers(std::move(l)) { ++levers->live_image_prompts; }
    ~FakeImagePrompts() override { --levers->live_image_prompts; }
    std::shared_ptr<Levers> levers;
  };

  struct FakeRow : Row {
    FakeRow(std::shared_ptr<Levers> l, const DenoiseOptions& o, uint64_t s, std::shared_ptr<const Conditioning> c,
            AdapterSchedule a, std::shared_ptr<const InitLatents> i, std::shared_ptr<const Controls> n,
            std::shared_ptr<const ImagePrompts> p)
        : levers(std::move(l)),
          options(o),
          seed(s),
          conditioning(std::move(c)),
          schedule(std::move(a)),
          init(std::move(i)),
          controls(std::move(n)),
          image_prompts(std::move(p)) {
      ++levers->live_rows;
    }
    ~FakeRow() override { --levers->live_rows; }
    const DenoiseOptions& denoise() const override { return options; }
    // As Heun's: two evaluations a step, the last step one.
    uint32_t steps_done() const override {
      const bool two = options.sampler == Sampler::kHeun && evaluated < 2 * total_steps() - 1;
      return two ? evaluated / 2 : std::min(evaluated, total_steps());
    }
    uint32_t total_steps() const override { return options.steps_run(); }
    uint32_t evaluations() const override { return evaluated; }
    const AdapterSchedule& adapters() const override { return schedule; }
    uint32_t controls_at(uint32_t evaluation) const override {
      if (controls == nullptr) {
        return 0;
      }
      const std::vector<EvaluationRange>& ranges = static_cast<const FakeControls&>(*controls).ranges;
      return static_cast<uint32_t>(std::count_if(ranges.begin(), ranges.end(), [&](const EvaluationRange& range) {
        return range.Holds(evaluation, options.evaluations());
      }));
    }
    uint32_t image_prompts_seen() const override { return image_prompts == nullptr ? 0 : 1; }
    int64_t bytes_to_keep() const override { return evaluated == 0 ? levers->kept_bytes.load() : 0; }

    std::shared_ptr<Levers> levers;
    DenoiseOptions options;
    uint64_t seed;
    std::shared_ptr<const Conditioning> conditioning;
    AdapterSchedule schedule;
    std::shared_ptr<const InitLatents> init;
    std::shared_ptr<const Controls> controls;
    std::shared_ptr<const ImagePrompts> image_prompts;
    uint32_t evaluated = 0;
  };

  std::shared_ptr<Levers> levers_;
  const std::vector<MemoryArea> memory_ = {{"weights", "cpu", 1000}};
  ModelInfo info_;
  std::string applied_;  // step thread only; "" is the base
  ApplyMode mode_ = ApplyMode::kMerged;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_FAKE_PIPELINE_H_
