#include "server/generation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/status_mapping.h"
#include "src/base/error_details.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr size_t kMaxLoggedNameBytes = 128;

// Refuses a request for `violations`, together with whatever else is wrong with it.
absl::Status Refuse(const ImageRequest& request, std::vector<FieldViolation> violations, const RequestLimits& limits) {
  const absl::Status rest = ValidateImageRequest(request, limits).status();
  for (FieldViolation& violation : GetErrorDetails(rest).violations) {
    violations.push_back(std::move(violation));
  }
  return InvalidRequest(std::move(violations));
}

// Who ended an admitted request before its time; nullopt if it ended by itself.
std::optional<CancelCause> CauseOf(const absl::Status& status) {
  if (absl::IsCancelled(status)) {
    return CancelCause::kClient;
  }
  if (absl::IsDeadlineExceeded(status)) {
    return CancelCause::kDeadline;
  }
  return absl::IsUnavailable(status) ? std::optional(CancelCause::kShutdown) : std::nullopt;
}

}  // namespace

Generation::Generation(ServiceContext* service, const char* method, grpc::CallbackServerContext* context)
    : watch_(service, context), rpc_(service, method, context), active_calls_(&service->active_calls) {
  active_calls_->Add();
}

void Generation::Hold() {
  MutexLock lock(&mu_);
  held_by_grpc_ = shared_from_this();
}

void Generation::Release() {
  std::shared_ptr<Generation> self;  // is destroyed after the lock is released
  MutexLock lock(&mu_);
  self = std::move(held_by_grpc_);
  watch_.Done();
  active_calls_->Remove();
}

void Generation::CancelGeneration(std::optional<absl::Status> why) {
  std::string id;
  {
    MutexLock lock(&mu_);
    if (result_.has_value()) {
      return;  // it has ended
    }
    id = admitted_id_;
    why = why.has_value() ? why : rpc_.WhyCancelled();
    since_cancel_ = since_cancel_.value_or(Stopwatch());
  }
  engine_->Cancel(id, this, *why);
}

void Generation::NoteProgress(const ImageProgress& progress) {
  stage_ = progress.step < progress.total_steps ? CallStage::kDenoise : CallStage::kDecode;
}

void Generation::NoteImage(const FinishedImage& image) {
  calls().CountImageBytes(image.format, image.data.size());
  rpc_.image_access()->image_bytes += image.data.size();
}

void Generation::NoteEnd(const absl::Status& status, const ImageSummary& summary) {
  if (since_cancel_.has_value()) {
    calls().ObserveCancelLatency(since_cancel_->Seconds());
  }
  if (const auto cause = CauseOf(status); cause.has_value()) {
    calls().CountCancelled(stage_, *cause);
  }
  if (status.ok()) {
    std::vector<std::string> names;
    for (const AppliedAdapter& adapter : summary.adapters) {
      names.push_back(adapter.name);
    }
    calls().CountAdapterUse(names);
  }
  rpc_.image_access()->summary = summary;
}

absl::StatusOr<ImageRequest> Generation::CheckMapped(MappedImageRequest mapped) {
  rpc_.set_request_id(mapped.request.request_id);
  NoteRequest(mapped.request);
  ABSL_ASSIGN_OR_RETURN(engine_, rpc_.FindEngine());
  mapped.request.caller = rpc_.caller();
  mapped.request.deadline = rpc_.Deadline();
  if (!mapped.violations.empty()) {
    return Refuse(mapped.request, std::move(mapped.violations), engine_->limits());
  }
  return std::move(mapped.request);
}

void Generation::Admit(const Admission& admission) {
  MutexLock lock(&mu_);
  admitted_id_ = admission.request_id;
  rpc_.set_request_id(admission.request_id);
  rpc_.SendIdsFirst();
  OnAdmitted(admission);
}

void Generation::NoteRequest(const ImageRequest& request) {
  ImageAccess& access = rpc_.image_access().emplace();
  access.width = request.width.value_or(0);
  access.height = request.height.value_or(0);
  access.steps = request.steps.value_or(0);
  access.images = request.num_images.value_or(1);
  access.hires = request.hires;
  for (const AdapterRef& adapter : request.adapters) {
    access.adapters_asked.push_back(CleanText(adapter.name, kMaxLoggedNameBytes));
  }
}

void UnaryGeneration::EndRefused(const absl::Status& status) {
  MutexLock lock(&mu_);
  result_ = status;
  rpc_.End(status, [this](const grpc::Status& ended) {
    watch_.Sending();
    Finish(ended);
  });
}

void UnaryGeneration::OnProgress(const ImageProgress& progress) {
  MutexLock lock(&mu_);
  NoteProgress(progress);
}

void UnaryGeneration::OnImage(FinishedImage image) {
  MutexLock lock(&mu_);
  const absl::Status added = CatchExceptions([&] {
    mu_.AssertHeld();
    NoteImage(image);
    AddImage(std::move(image));
    return absl::OkStatus();
  });
  failure_ = failure_.ok() ? added : failure_;
}

void UnaryGeneration::OnEnd(const absl::Status& status, const ImageSummary& summary) {
  MutexLock lock(&mu_);
  const absl::Status ended = CatchExceptions([&] {
    mu_.AssertHeld();
    const absl::Status& known = status.ok() ? failure_ : status;  // an image may be missing
    NoteEnd(known, summary);
    return AddSummary(InCallersWords(known), summary);
  });
  result_ = ended;
  watch_.Sending(ResponseBytes());
  Finish(rpc_.Close(*result_));
}

}  // namespace hotlora
