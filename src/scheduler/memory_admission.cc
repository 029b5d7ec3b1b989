#include "src/scheduler/memory_admission.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/mutex.h"

namespace hotlora {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

// Tokens of a chunk; a token is a byte at least.
constexpr size_t kChunkTokens = 75;

std::string InMiB(int64_t bytes) { return absl::StrCat((bytes + kMiB - 1) / kMiB, " MiB"); }

std::string Describe(const MemoryWork& work) {
  const std::string size = absl::StrCat("at ", work.width, "x", work.height);
  switch (work.kind) {
    case MemoryWork::Kind::kText:
      return "encoding the prompts";
    case MemoryWork::Kind::kInit:
      return "encoding an image " + size;
    case MemoryWork::Kind::kHint:
      return "embedding a control picture " + size;
    case MemoryWork::Kind::kImagePrompt:
      return absl::StrCat("encoding ", work.width, " pictures of image prompts");
    case MemoryWork::Kind::kStep:
      return "a denoising step " + size;
    case MemoryWork::Kind::kDecode:
      return "decoding an image " + size;
  }
  return "";
}

absl::Status TooLarge(const MemoryWork& work, int64_t needed, int64_t available) {
  return MakeError(
      absl::StatusCode::kResourceExhausted, error_reason::kOutOfMemory,
      absl::StrCat(Describe(work), " needs ", InMiB(needed), " of memory with head-room, and ", InMiB(available),
                   " are available: ask for a smaller image or fewer adapters, or give the server more memory"));
}

MemoryWork Tiled(MemoryWork work) {
  work.form = VaeForm::kTiled;
  return work;
}

double Units(uint32_t width, uint32_t height, uint32_t rows) { return double{1} * width * height * rows; }

}  // namespace

MemoryWork TextWork(const Prompts& prompts) {
  size_t longest = 0;
  for (const std::string& text :
       {prompts.prompt, prompts.prompt_2, prompts.negative_prompt.value_or(""), prompts.negative_prompt_2}) {
    longest = std::max(longest, text.size());
  }
  MemoryWork work;
  work.kind = MemoryWork::Kind::kText;
  work.width = prompts.long_prompts ? static_cast<uint32_t>(1 + longest / kChunkTokens) : 1;
  work.height = 1;
  return work;
}

MemoryWork InitWork(const DenoiseOptions& options) { return {MemoryWork::Kind::kInit, options.width, options.height}; }

MemoryWork HintWork(const DenoiseOptions& options, size_t controls) {
  return {MemoryWork::Kind::kHint, options.width, options.height, static_cast<uint32_t>(controls)};
}

MemoryWork ImagePromptWork(const ImagePromptInputs& inputs, const ImagePromptBytes& bytes) {
  MemoryWork work;
  work.kind = MemoryWork::Kind::kImagePrompt;
  for (const ImagePromptInput& prompt : inputs.prompts) {
    work.width += static_cast<uint32_t>(prompt.pictures.size());
  }
  work.height = 1;
  work.kept_bytes = bytes.kept;
  work.shape_bytes = bytes.encoding;
  return work;
}

MemoryWork StepWork(const DenoiseOptions& options, uint32_t controls) {
  MemoryWork work{MemoryWork::Kind::kStep, options.width, options.height, options.cfg() ? 2u : 1u};
  work.control_rows = controls * work.rows;
  return work;
}

MemoryWork StepWork(const Row& row) { return StepWork(row.denoise(), row.controls_at(row.evaluations())); }

MemoryWork DecodeWork(const DenoiseOptions& options) {
  return {MemoryWork::Kind::kDecode, options.width, options.height};
}

MemoryWork DecodeWork(const ImageJob& job) {
  const DenoiseOptions& options = job.last_pass();
  // A unary answer holds all images, once as they were made and once as they are sent; a file is not larger than the
  // image's pixels.
  const int64_t answer = int64_t{2} * 3 * job.num_images * options.width * options.height;
  MemoryWork work = DecodeWork(options);
  work.answer_bytes = answer;
  return work;
}

MemoryAdmission::MemoryAdmission(const Pipeline* pipeline, Metrics* metrics) : pipeline_(pipeline), metrics_(metrics) {}

absl::Status MemoryAdmission::CheckAlone(const ImageJob& job) {
  std::vector<MemoryWork> works = {TextWork(job.prompts)};
  if (job.has_init()) {
    works.push_back(InitWork(job.denoise));
  }
  const auto controls = static_cast<int64_t>(job.controls.size());
  int64_t hints = 0;  // of both passes, which are embedded before the first step
  const auto add_hints = [&](const DenoiseOptions& options) {
    if (controls > 0) {
      works.push_back(HintWork(options, job.controls.size()));
      works.back().kept_bytes = hints;
      hints += controls * pipeline_->ControlBytesOf(options.width, options.height).hint;
    }
  };
  add_hints(job.denoise);
  if (job.hires.has_value()) {
    add_hints(*job.hires);
  }
  const size_t begun = works.size();  // from here on, the hints are there
  works.push_back(StepWork(job.denoise, job.most_controls(Pass::kFirst)));
  if (job.hires.has_value()) {
    works.insert(works.end(), {DecodeWork(job.denoise), InitWork(*job.hires),
                               StepWork(*job.hires, job.most_controls(Pass::kSecond))});
  }
  works.push_back(DecodeWork(job));
  std::for_each(works.begin() + static_cast<std::ptrdiff_t>(begun), works.end(),
                [hints](MemoryWork& work) { work.kept_bytes = hints; });
  MutexLock lock(&mu_);
  std::vector<int64_t> sums;
  for (const MemoryWork& work : works) {
    sums.push_back(NeedOf(work).sum());
  }
  const int64_t available = std::max(Look(*std::max_element(sums.begin(), sums.end())), idle_available_);
  for (size_t i = 0; i < works.size(); ++i) {
    const int64_t sum = MustTile(works[i], available) ? NeedOf(Tiled(works[i])).sum() : sums[i];
    if (sum > available) {
      return TooLarge(works[i], sum, available);
    }
  }
  return absl::OkStatus();
}

bool MemoryAdmission::FitsNow(const MemoryWork& work) {
  MutexLock lock(&mu_);
  const int64_t sum = Sum(NeedOf(work));
  return sum <= Look(sum);
}

absl::StatusOr<MemoryAdmission::Begun> MemoryAdmission::Begin(MemoryWork& work) {
  MutexLock lock(&mu_);
  const uint64_t ticket = next_ticket_++;
  Need need = NeedOf(work);
  int64_t available = Look(Sum(need));
  while (turn_ != ticket || (!under_way_.empty() && Sum(need) > available)) {
    changed_.Wait(&mu_);
    need = NeedOf(work);
    available = Look(Sum(need));
  }
  ++turn_;
  changed_.SignalAll();
  if (under_way_.empty() && MustTile(work, available)) {
    work.form = VaeForm::kTiled;
    need = NeedOf(work);
  }
  const int64_t sum = Sum(need);
  if (sum > available) {
    return TooLarge(work, sum, available);
  }
  if (work.form == VaeForm::kTiled) {
    metrics_->CountTiledVae(work.kind == MemoryWork::Kind::kDecode ? VaeWork::kDecode : VaeWork::kEncode);
  }
  most_needed_ = std::max(most_needed_, need.sum());
  metrics_->SetWorkMemory(idle_available_, most_needed_);
  return under_way_.insert(under_way_.end(), need);
}

void MemoryAdmission::End(Begun begun, const MemoryWork& work, std::optional<int64_t> peak) {
  MutexLock lock(&mu_);
  under_way_.erase(begun);
  changed_.SignalAll();
  if (!peak.has_value()) {
    return;
  }
  Peak& known = peaks_[SizeOf(work)];
  known.bytes = std::max(known.bytes, *peak - work.kept_bytes);
  known.last_use = ++uses_;
  if (peaks_.size() > kSizes) {
    peaks_.erase(std::min_element(peaks_.begin(), peaks_.end(),
                                  [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; }));
  }
}

bool MemoryAdmission::MustTile(const MemoryWork& work, int64_t available) const {
  if (work.kind != MemoryWork::Kind::kDecode && work.kind != MemoryWork::Kind::kInit) {
    return false;
  }
  const int64_t whole = NeedOf(work).sum();
  return whole > available && NeedOf(Tiled(work)).sum() < whole;
}

MemoryAdmission::Need MemoryAdmission::NeedOf(const MemoryWork& work) const {
  const auto known = peaks_.find(SizeOf(work));
  const bool first = known == peaks_.end();
  const int64_t peak = std::max(first ? FirstPeak(work) : known->second.bytes, work.shape_bytes);
  return {static_cast<int64_t>(kMargin * static_cast<double>(peak)) + work.answer_bytes + work.kept_bytes,
          first ? kFirstHeadRoom : kHeadRoom};
}

int64_t MemoryAdmission::FirstPeak(const MemoryWork& work) const {
  if (work.form == VaeForm::kTiled) {
    return work.kind == MemoryWork::Kind::kDecode ? pipeline_->TiledDecodeBytes(work.width, work.height)
                                                  : pipeline_->TiledEncodeBytes(work.width, work.height);
  }
  if (work.kind == MemoryWork::Kind::kHint) {
    const ControlBytes bytes = pipeline_->ControlBytesOf(work.width, work.height);
    return work.rows * bytes.hint + bytes.embedding;
  }
  if (work.control_rows > 0) {
    MemoryWork without = work;
    without.control_rows = 0;
    const auto known = peaks_.find(SizeOf(without));
    const ControlBytes bytes = pipeline_->ControlBytesOf(work.width, work.height);
    return (known == peaks_.end() ? Scaled(work.kind, without) : known->second.bytes) +
           work.control_rows * bytes.outputs + work.rows * bytes.text;
  }
  const int64_t scaled = Scaled(work.kind, work);
  return scaled == 0 && work.kind == MemoryWork::Kind::kInit
             ? Scaled(MemoryWork::Kind::kDecode, work)  // the other half of the VAE, and the larger one
             : scaled;
}

int64_t MemoryAdmission::Scaled(MemoryWork::Kind kind, const MemoryWork& work) const {
  const double units = Units(work.width, work.height, work.rows);
  double nearest = std::numeric_limits<double>::infinity();  // by what factor it is smaller, or larger
  double scaled = 0;
  for (const auto& [size, peak] : peaks_) {
    const auto [known_kind, width, height, rows, control_rows, form] = size;
    const double factor = units / Units(width, height, rows);
    if (known_kind == kind && control_rows == 0 && form == work.form && std::max(factor, 1 / factor) < nearest) {
      nearest = std::max(factor, 1 / factor);
      scaled = factor * static_cast<double>(peak.bytes);
    }
  }
  return static_cast<int64_t>(scaled);
}

int64_t MemoryAdmission::Sum(const Need& need) const {
  Need sum = need;
  for (const Need& other : under_way_) {
    sum.bytes += other.bytes;
    sum.head_room = std::max(sum.head_room, other.head_room);
  }
  return sum.bytes + sum.head_room;
}

int64_t MemoryAdmission::Look(int64_t wanted) {
  int64_t available = pipeline_->AvailableMemory();
  if (under_way_.empty()) {
    if (available < wanted) {
      pipeline_->ReleaseCachedMemory();
      available = pipeline_->AvailableMemory();
    }
    idle_available_ = available;
  }
  return available;
}

}  // namespace hotlora
