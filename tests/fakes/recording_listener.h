#ifndef HOTLORA_TESTS_FAKES_RECORDING_LISTENER_H_
#define HOTLORA_TESTS_FAKES_RECORDING_LISTENER_H_

#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

#include "src/request/image_events.h"

namespace hotlora {

// Keeps what a request hears; AwaitDone waits for its end.
class RecordingListener : public ImageListener {
 public:
  void OnWaiting(const ImageWaiting& waiting) override {
    absl::MutexLock lock(&mu_);
    waitings_.push_back(waiting);
  }
  void OnProgress(const ImageProgress& progress) override {
    absl::MutexLock lock(&mu_);
    progresses_.push_back(progress);
  }
  void OnImage(FinishedImage image) override {
    absl::MutexLock lock(&mu_);
    images_.push_back(std::move(image));
  }
  void OnEnd(const absl::Status& status, const ImageSummary& summary) override {
    absl::MutexLock lock(&mu_);
    status_ = status;
    summary_ = summary;
    ++dones_;
  }

  absl::Status AwaitDone() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](RecordingListener* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return l->dones_ > 0; }, this));
    return status_;
  }
  bool IsDone() {
    absl::MutexLock lock(&mu_);
    return dones_ > 0;
  }
  ImageWaiting AwaitWaiting() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(
        +[](RecordingListener* l) ABSL_NO_THREAD_SAFETY_ANALYSIS { return !l->waitings_.empty(); }, this));
    return waitings_.front();
  }

  // After AwaitDone nothing changes any more.
  std::vector<ImageProgress> progresses() {
    absl::MutexLock lock(&mu_);
    return progresses_;
  }
  std::vector<FinishedImage> images() {
    absl::MutexLock lock(&mu_);
    return images_;
  }
  ImageSummary summary() {
    absl::MutexLock lock(&mu_);
    return summary_;
  }
  int dones() {
    absl::MutexLock lock(&mu_);
    return dones_;
  }

 private:
  absl::Mutex mu_;
  std::vector<ImageWaiting> waitings_ ABSL_GUARDED_BY(mu_);
  std::vector<ImageProgress> progresses_ ABSL_GUARDED_BY(mu_);
  std::vector<FinishedImage> images_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  ImageSummary summary_ ABSL_GUARDED_BY(mu_);
  int dones_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_RECORDING_LISTENER_H_
