#ifndef HOTLORA_TESTS_FAKES_FAKE_ENGINE_H_
#define HOTLORA_TESTS_FAKES_FAKE_ENGINE_H_

// An engine without a model. Tests say what happens and when:
//
//   FakeEngine engine;
//   ...a call arrives...
//   FakeEngine::Submission request = engine.AwaitSubmission();   // blocks until Submit was called
//   request.listener->OnProgress({0, 1, 2});                     // in the test's thread
//   request.listener->OnEnd(absl::OkStatus(), {});
//
// It uses std::mutex, which ThreadSanitizer sees without tests/tsan_abseil.cc.

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "src/base/error_details.h"
#include "src/engine/engine.h"

namespace hotlora {

// A store that has nothing.
class EmptyServedStore final : public ServedStore {
 public:
  void Load(std::string, AdapterTier, bool, std::string,
            std::function<void(absl::StatusOr<AdapterInfo>)> done) override {
    done(Missing());
  }
  absl::StatusOr<AdapterInfo> Unload(absl::string_view) override { return Missing(); }
  absl::StatusOr<AdapterInfo> Get(absl::string_view) const override { return Missing(); }
  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view, size_t) const override {
    return std::vector<AdapterInfo>();
  }
  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader) override { return Missing(); }
  absl::Status Delete(absl::string_view) override { return Missing(); }

 private:
  static absl::Status Missing() { return MakeError(absl::StatusCode::kNotFound, "CONTROL_NOT_FOUND", "no ControlNet"); }
};

// Its adapters are its own; it has no ControlNets and no image prompts.
class FakeEngine : public Engine, public ServedStore {
 public:
  struct Submission {
    ImageRequest request;
    Admission admission;
    std::shared_ptr<ImageListener> listener;
  };
  using Script = std::function<void(const Submission&)>;

  FakeEngine() {
    model_.name = "fake";
    model_.sha256 = std::string(64, 'a');
    model_.dtype = "float32";
    model_.device = "cpu";
    model_.native_size = 512;
    model_.max_clip_skip = 11;
    limits_ = {model_.native_size, model_.max_clip_skip};
  }

  // --- levers

  // What the next Submit answers instead of admitting.
  void RefuseNext(absl::Status status) {
    std::lock_guard<std::mutex> lock(mu_);
    refusals_.push_back(std::move(status));
  }

  // Run inside Submit for each admitted request, in place of AwaitSubmission.
  void SetScript(Script script) {
    std::lock_guard<std::mutex> lock(mu_);
    script_ = std::move(script);
  }

  Submission AwaitSubmission() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return !submissions_.empty(); });
    Submission submission = std::move(submissions_.front());
    submissions_.pop_front();
    return submission;
  }

  // The status that Cancel was called with. Cancel itself does nothing: the test ends the request.
  std::pair<std::string, absl::Status> AwaitCancel() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return !cancels_.empty(); });
    return cancels_.front();
  }

  void AddAdapter(AdapterInfo info) {
    std::lock_guard<std::mutex> lock(mu_);
    adapters_[info.name] = std::move(info);
  }
  // What loading `name` answers.
  void FailLoads(const std::string& name, absl::Status status) {
    std::lock_guard<std::mutex> lock(mu_);
    load_errors_[name] = std::move(status);
  }
  // Keeps LoadAdapter's answers back until ReleaseLoads.
  void HoldLoads() {
    std::lock_guard<std::mutex> lock(mu_);
    hold_loads_ = true;
  }
  void AwaitHeldLoads(size_t count = 1) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return held_loads_.size() >= count; });
  }
  void ReleaseLoads() {
    std::vector<std::function<void()>> held;
    {
      std::lock_guard<std::mutex> lock(mu_);
      hold_loads_ = false;
      held.swap(held_loads_);
    }
    for (const auto& answer : held) {
      answer();
    }
  }
  // ListAdapters waits, as for a disk that hangs.
  void HoldLists(bool hold) {
    std::lock_guard<std::mutex> lock(mu_);
    hold_lists_ = hold;
    changed_.notify_all();
  }
  void AwaitHeldList() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return lists_held_ > 0; });
  }
  void AwaitDrain() {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return draining_; });
  }
  int submit_count() const {
    std::lock_guard<std::mutex> lock(mu_);
    return submit_count_;
  }
  EngineOptions& mutable_options() { return options_; }  // before the server serves it

  // --- Engine

  absl::Status WarmUp() override { return absl::OkStatus(); }

  absl::StatusOr<Admission> Submit(const ImageRequest& request, std::shared_ptr<ImageListener> listener,
                                   std::function<void(const Admission&)> on_admitted) override {
    Submission submission{request, {}, std::move(listener)};
    Script script;
    {
      std::lock_guard<std::mutex> lock(mu_);
      ++submit_count_;
      changed_.notify_all();
      if (!refusals_.empty()) {
        const absl::Status refusal = refusals_.front();
        refusals_.pop_front();
        return refusal;
      }
      if (draining_) {
        return MakeError(absl::StatusCode::kUnavailable, "draining", ErrorDetails{"DRAINING", {}, absl::Seconds(1)});
      }
      script = script_;
    }
    if (const auto job = ValidateImageRequest(request, limits_); !job.ok()) {
      return job.status();
    } else {
      submission.admission = {job->request_id, job->seed, 0};
    }
    on_admitted(submission.admission);
    if (script != nullptr) {
      script(submission);
    } else {
      std::lock_guard<std::mutex> lock(mu_);
      submissions_.push_back(submission);
      changed_.notify_all();
    }
    return submission.admission;
  }

  void Cancel(absl::string_view request_id, const ImageListener* listener, absl::Status status) override {
    std::lock_guard<std::mutex> lock(mu_);
    cancels_.emplace_back(std::string(request_id), std::move(status));
    changed_.notify_all();
  }

  void Load(std::string name, AdapterTier tier, bool pin, std::string /*caller*/,
            std::function<void(absl::StatusOr<AdapterInfo>)> done) override {
    absl::StatusOr<AdapterInfo> answer = WithAdapter(name, [&](AdapterInfo& info) {
      info.tier = AdapterTier::kHost;
      info.pinned = info.pinned || pin;
    });
    {
      std::lock_guard<std::mutex> lock(mu_);
      if (const auto error = load_errors_.find(name); error != load_errors_.end()) {
        answer = error->second;
      }
      if (hold_loads_) {
        held_loads_.push_back([done = std::move(done), answer] { done(answer); });
        changed_.notify_all();
        return;
      }
    }
    done(std::move(answer));
  }
  absl::StatusOr<AdapterInfo> Unload(absl::string_view name) override {
    return WithAdapter(std::string(name), [](AdapterInfo& info) {
      info.tier = AdapterTier::kDisk;
      info.pinned = false;
    });
  }
  absl::StatusOr<AdapterInfo> Get(absl::string_view name) const override {
    return const_cast<FakeEngine*>(this)->WithAdapter(std::string(name), [](AdapterInfo&) {});
  }
  absl::StatusOr<std::unique_ptr<AdapterUpload>> BeginUpload(UploadHeader header) override {
    std::lock_guard<std::mutex> lock(mu_);
    if (!refusals_.empty()) {
      const absl::Status refusal = refusals_.front();
      refusals_.pop_front();
      return refusal;
    }
    ++uploads_begun_;
    changed_.notify_all();
    return std::make_unique<FakeUpload>(this, std::move(header));
  }
  absl::Status Delete(absl::string_view name) override {
    std::lock_guard<std::mutex> lock(mu_);
    return adapters_.erase(std::string(name)) == 0
               ? MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", absl::StrCat("no adapter \"", name, "\""))
               : absl::OkStatus();
  }
  absl::StatusOr<std::vector<AdapterInfo>> List(absl::string_view after, size_t limit) const override {
    std::unique_lock<std::mutex> lock(mu_);
    ++lists_held_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !hold_lists_; });
    --lists_held_;
    std::vector<AdapterInfo> page;
    for (auto it = adapters_.upper_bound(std::string(after)); it != adapters_.end() && page.size() < limit; ++it) {
      page.push_back(it->second);
    }
    return page;
  }

  ServedStore& adapters() override { return *this; }
  ServedStore& controls() override { return nothing_; }
  ServedStore& image_prompts() override { return nothing_; }
  ServedStore& image_encoder() override { return nothing_; }

  void VerifyBase(std::function<void(absl::StatusOr<BaseReport>)> done) override { done(BaseReport{3, 1, 1, true}); }
  EngineStatistics Statistics() const override {
    std::lock_guard<std::mutex> lock(mu_);
    return statistics_;
  }
  void SetStatistics(EngineStatistics statistics) {
    std::lock_guard<std::mutex> lock(mu_);
    statistics_ = std::move(statistics);
  }

  const ModelInfo& model() const override { return model_; }
  const EngineOptions& options() const override { return options_; }
  const RequestLimits& limits() const override { return limits_; }
  uint32_t queue_depth() const override { return 0; }

  bool Drain(absl::Duration) override {
    std::lock_guard<std::mutex> lock(mu_);
    draining_ = true;
    changed_.notify_all();
    return true;
  }

  // The bytes that were committed as `name`; nothing where none were.
  std::optional<std::string> Uploaded(const std::string& name) const {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = uploaded_.find(name);
    return found == uploaded_.end() ? std::nullopt : std::optional<std::string>(found->second);
  }
  // Waits until so many uploads began and as many ended, well or not.
  void AwaitUploadsEnded(int count) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return uploads_begun_ >= count && uploads_ended_ == uploads_begun_; });
  }
  void AwaitUploadsBegun(int count) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [&] { return uploads_begun_ >= count; });
  }

 private:
  class FakeUpload : public AdapterUpload {
   public:
    FakeUpload(FakeEngine* engine, UploadHeader header) : engine_(engine), header_(std::move(header)) {}
    ~FakeUpload() override {
      std::lock_guard<std::mutex> lock(engine_->mu_);
      ++engine_->uploads_ended_;
      engine_->changed_.notify_all();
    }
    absl::Status Append(absl::string_view bytes) override {
      bytes_.append(bytes.data(), bytes.size());
      return absl::OkStatus();
    }
    absl::StatusOr<AdapterInfo> Commit() override {
      if (bytes_.size() != header_.size) {
        return MakeError(absl::StatusCode::kInvalidArgument, "UPLOAD_SIZE", "wrong size");
      }
      AdapterInfo info;
      info.name = header_.name;
      info.bytes = header_.size;
      info.content_sha256 = header_.sha256;
      std::lock_guard<std::mutex> lock(engine_->mu_);
      engine_->uploaded_[header_.name] = bytes_;
      engine_->adapters_[header_.name] = info;
      return info;
    }

   private:
    FakeEngine* const engine_;
    const UploadHeader header_;
    std::string bytes_;
  };

  template <typename Change>
  absl::StatusOr<AdapterInfo> WithAdapter(const std::string& name, Change change) {
    std::lock_guard<std::mutex> lock(mu_);
    const auto found = adapters_.find(name);
    if (found == adapters_.end()) {
      return MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", absl::StrCat("no adapter \"", name, "\""));
    }
    change(found->second);
    return found->second;
  }

  ModelInfo model_;
  EngineOptions options_;
  RequestLimits limits_;

  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  // Guarded by mu_.
  std::deque<absl::Status> refusals_;
  Script script_;
  std::deque<Submission> submissions_;
  std::vector<std::pair<std::string, absl::Status>> cancels_;
  EmptyServedStore nothing_;
  std::map<std::string, AdapterInfo> adapters_;
  std::map<std::string, absl::Status> load_errors_;
  std::vector<std::function<void()>> held_loads_;
  EngineStatistics statistics_;
  std::map<std::string, std::string> uploaded_;
  int uploads_begun_ = 0, uploads_ended_ = 0;
  bool hold_loads_ = false;
  bool hold_lists_ = false;
  mutable int lists_held_ = 0;
  bool draining_ = false;
  int submit_count_ = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_FAKE_ENGINE_H_
