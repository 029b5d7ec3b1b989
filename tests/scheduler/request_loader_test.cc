#include "src/scheduler/request_loader.h"

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include <gtest/gtest.h>

#include "tests/fakes/fake_adapter_store.h"
#include "tests/fakes/fake_embedding_store.h"
#include "tests/fakes/fake_pipeline.h"
#include "tests/fakes/recording_listener.h"

namespace hotlora {
namespace {

using Call = FakePipeline::Levers::Call;

// Requests that load for real and run over a fake pipeline. Decodes wait until the test permits them.
class RequestLoaderTest : public ::testing::Test {
 public:
  RequestLoaderTest() {
    store_levers_->Add("a");
    control_levers_->AddControl("net");
    EXPECT_TRUE(scheduler_.AwaitWarmUp().ok());
  }

  ~RequestLoaderTest() override {
    PermitDecodes(1000);
    pipeline_levers_->LetGo();
    queue_.AwaitEmpty(absl::InfiniteDuration());
    queue_.Stop();
  }

  // Enqueues a request; its listener.
  std::shared_ptr<RecordingListener> Submit(const std::string& id, const std::string& caller, bool init,
                                            std::vector<AdapterUse> adapters = {}, size_t controls = 0,
                                            size_t image_prompts = 0) {
    ImageJob job;
    job.request_id = id;
    job.caller = caller;
    job.denoise.width = job.denoise.height = 16;
    job.denoise.steps = 1;
    job.init_image = init ? "a picture" : "";
    job.adapters = std::move(adapters);
    job.controls.resize(controls);
    for (ControlUse& control : job.controls) {
      control.name = "net";
    }
    job.image_prompts.resize(image_prompts);
    for (ImagePromptUse& prompt : job.image_prompts) {
      prompt.name = "style";
    }
    auto listener = std::make_shared<RecordingListener>();
    auto task = std::make_shared<ImageTask>(std::move(job), listener, absl::InfiniteDuration());
    EXPECT_TRUE(queue_.Admit(task).ok());
    queue_.Enqueue(task);
    loader_.Load(task);
    tasks_.push_back(task);
    return listener;
  }

  void PermitDecodes(int count) {
    absl::MutexLock lock(&mu_);
    permitted_ += count;
  }

  void AwaitDecodes(size_t count) {
    absl::MutexLock lock(&mu_);
    const auto begun = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return decoded_.size() >= count; };
    mu_.Await(absl::Condition(&begun));
  }

  std::vector<std::string> decoded() {
    absl::MutexLock lock(&mu_);
    return decoded_;
  }

  absl::StatusOr<RequestPictures> Decode(const ImageJob& job, MiddleSquare seen) {
    EXPECT_EQ(seen.side > 0, !job.image_prompts.empty());
    absl::MutexLock lock(&mu_);
    decoded_.push_back(job.request_id);
    if (job.request_id == "throws") {
      throw std::length_error("a picture of a size that no vector has");
    }
    const auto permitted = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return permitted_ > 0; };
    mu_.Await(absl::Condition(&permitted));
    --permitted_;
    RequestPictures pictures;
    pictures.init.image = {16, 16, std::vector<uint8_t>(16 * 16 * 3)};
    pictures.controls.resize(job.controls.size(), pictures.init.image);
    pictures.image_prompts.resize(job.image_prompts.size(), {pictures.init.image});
    return pictures;
  }

  absl::Mutex mu_;
  int permitted_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> decoded_ ABSL_GUARDED_BY(mu_);  // request ids, as their decodes began

  Metrics metrics_;
  std::shared_ptr<FakePipeline::Levers> pipeline_levers_ = std::make_shared<FakePipeline::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> store_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  std::shared_ptr<FakeAdapterStore::Levers> control_levers_ = std::make_shared<FakeAdapterStore::Levers>();
  FakePipeline pipeline_{pipeline_levers_};
  FakeAdapterStore store_{store_levers_};
  FakeAdapterStore controls_{control_levers_};
  FakeEmbeddingStore embeddings_;
  RequestQueue queue_{100};
  StepScheduler scheduler_{{}, {}, &queue_, &pipeline_, &metrics_};
  RequestLoader loader_{&store_,
                        &controls_,
                        &embeddings_,
                        &queue_,
                        &scheduler_,
                        &metrics_,
                        [this](const ImageJob& job, MiddleSquare seen) { return Decode(job, seen); },
                        /*picture_bytes=*/2 * 16 * 16 * 3};
  std::vector<std::shared_ptr<ImageTask>> tasks_;
};

TEST_F(RequestLoaderTest, DecodesOfOneCallerDoNotDelayAnothersAdapter) {
  for (int i = 0; i < 12; ++i) {
    Submit("slow" + std::to_string(i), "one", true);
  }
  AwaitDecodes(1);
  const auto listener = Submit("cold", "two", false, {{"a", 1, 1}});
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(decoded(), std::vector<std::string>{"slow0"});  // which still waits
}

TEST_F(RequestLoaderTest, AnExceptionEndsItsRequestAlone) {
  const auto thrown = Submit("throws", "one", true);
  EXPECT_EQ(thrown->AwaitDone().code(), absl::StatusCode::kInternal);
  PermitDecodes(1);
  EXPECT_EQ(Submit("next", "one", true)->AwaitDone(), absl::OkStatus());
}

TEST_F(RequestLoaderTest, ADecodeWaitsForOneOfAnotherCallerAtMost) {
  for (int i = 0; i < 12; ++i) {
    Submit("slow" + std::to_string(i), "one", true);
  }
  AwaitDecodes(1);
  const auto listener = Submit("picture", "two", true);
  // The lookup thread hands each request on; this one of the other caller comes after all of them.
  const auto marker = Submit("marker", "three", false);
  EXPECT_EQ(marker->AwaitDone(), absl::OkStatus());
  PermitDecodes(3);
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  const std::vector<std::string> order = decoded();
  ASSERT_GE(order.size(), 3u);
  EXPECT_TRUE(order[1] == "picture" || order[2] == "picture");
}

TEST_F(RequestLoaderTest, ALoadWaitsForOneOfAnotherCallerAtMost) {
  absl::Notification begun, go_on, done;
  std::vector<std::string> order;  // of the adapter thread, until `done`
  loader_.RunOnAdapterThread("one", [&] {
    begun.Notify();
    go_on.WaitForNotification();
  });
  begun.WaitForNotification();
  for (int i = 0; i < 12; ++i) {
    loader_.RunOnAdapterThread("one", [&, i] {
      order.push_back("one");
      if (i == 11) {
        done.Notify();
      }
    });
  }
  loader_.RunOnAdapterThread("two", [&] { order.push_back("two"); });
  go_on.Notify();
  done.WaitForNotification();
  ASSERT_EQ(order.size(), 13u);
  EXPECT_EQ(order[1], "two") << "the first of one's began before two called";
}

TEST_F(RequestLoaderTest, ARequestThatWaitsForRoomIsDecodedAndEncodedOnce) {
  {
    absl::MutexLock lock(&store_levers_->mu);
    store_levers_->most_leases = 0;
  }
  PermitDecodes(1);
  const auto listener = Submit("one", "one", true, {{"a", 1, 1}});
  AwaitDecodes(1);
  for (int i = 0; i < 3; ++i) {
    loader_.RetryForRoom();
  }
  {
    absl::MutexLock lock(&store_levers_->mu);
    store_levers_->most_leases = 1;
  }
  while (!listener->IsDone()) {
    loader_.RetryForRoom();
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(decoded(), std::vector<std::string>{"one"});
  absl::MutexLock lock(&pipeline_levers_->mu);
  EXPECT_EQ(pipeline_levers_->init_sizes.size(), 1u);
}

TEST_F(RequestLoaderTest, ARequestThatWaitsForAControlNetGivesItsAdaptersBackMeanwhile) {
  {
    absl::MutexLock lock(&control_levers_->mu);
    control_levers_->most_leases = 0;
  }
  PermitDecodes(1);
  const auto listener = Submit("one", "", false, {{"a", 1, 1}}, /*controls=*/2);
  const std::shared_ptr<ImageTask> task = tasks_[0];
  {
    absl::MutexLock lock(&control_levers_->mu);
    const auto waits = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return control_levers_->waits > 0; };
    control_levers_->mu.Await(absl::Condition(&waits));
  }
  while (task->loading()) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(store_levers_->Leases(), 0);
  {
    absl::MutexLock lock(&control_levers_->mu);
    control_levers_->most_leases = 1;  // once for both controls
  }
  while (!listener->IsDone()) {
    loader_.RetryForRoom();
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(decoded(), std::vector<std::string>{"one"}) << "pictures are decoded once";
  EXPECT_EQ(control_levers_->Leases(), 0);
}

TEST_F(RequestLoaderTest, TheImageEncoderIsReadFirstOnceThereIsRoom) {
  control_levers_->AddImagePrompt("style");
  control_levers_->AddImageEncoder();
  {
    absl::MutexLock lock(&control_levers_->mu);
    control_levers_->most_leases = 0;
  }
  PermitDecodes(1);
  const auto listener = Submit("one", "", false, {}, /*controls=*/0, /*image_prompts=*/1);
  {
    absl::MutexLock lock(&control_levers_->mu);
    const auto waits = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return control_levers_->waits > 0; };
    control_levers_->mu.Await(absl::Condition(&waits));
    EXPECT_TRUE(decoded().empty());
    control_levers_->most_leases = 2;
  }
  while (!listener->IsDone()) {
    loader_.RetryForRoom();
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(listener->AwaitDone(), absl::OkStatus());
  EXPECT_EQ(decoded(), std::vector<std::string>{"one"});
  EXPECT_EQ(control_levers_->Leases(), 0);
}

// There is room for the pictures of two controls.
TEST_F(RequestLoaderTest, ControlPicturesAreDecodedOnceThoseOfOthersHaveStarted) {
  pipeline_levers_->Hold();
  Submit("running", "one", false);
  pipeline_levers_->AwaitHeld();
  PermitDecodes(100);
  std::vector<std::shared_ptr<RecordingListener>> listeners;
  for (int i = 0; i < 5; ++i) {
    listeners.push_back(Submit("controlled" + std::to_string(i), "one", false, {}, /*controls=*/1));
  }
  AwaitDecodes(2);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(decoded(), (std::vector<std::string>{"controlled0", "controlled1"}));
  tasks_[3]->Cancel(absl::CancelledError("the caller has gone"));
  loader_.EndIfUnwanted(tasks_[3]);
  EXPECT_TRUE(absl::IsCancelled(listeners[2]->AwaitDone())) << "at once, though there is no room";
  pipeline_levers_->LetGo();
  for (const int i : {0, 1, 3, 4}) {
    EXPECT_EQ(listeners[i]->AwaitDone(), absl::OkStatus());
  }
  EXPECT_EQ(decoded().size(), 4u);
}

TEST_F(RequestLoaderTest, MorePicturesThanThereIsRoomForAreDecodedAlone) {
  PermitDecodes(100);
  EXPECT_EQ(Submit("large", "one", false, {}, /*controls=*/4)->AwaitDone(), absl::OkStatus());
}

TEST_F(RequestLoaderTest, ACancelWhileAPictureIsDecodedEndsTheRequest) {
  const auto listener = Submit("one", "one", true);
  AwaitDecodes(1);
  tasks_[0]->Cancel(absl::CancelledError("the caller has gone"));
  loader_.EndIfUnwanted(tasks_[0]);
  EXPECT_FALSE(listener->IsDone());  // the decode is under way
  PermitDecodes(1);
  EXPECT_TRUE(absl::IsCancelled(listener->AwaitDone()));
}

TEST_F(RequestLoaderTest, ACancelWhileAnInitImageIsEncodedEndsTheRequest) {
  PermitDecodes(1);
  pipeline_levers_->Hold(Call::kEncodeInit);
  const auto listener = Submit("one", "one", true);
  pipeline_levers_->AwaitHeld(Call::kEncodeInit);
  tasks_[0]->Cancel(absl::CancelledError("the caller has gone"));
  loader_.EndIfUnwanted(tasks_[0]);
  EXPECT_FALSE(listener->IsDone());  // the encode is under way
  pipeline_levers_->LetGo();
  EXPECT_TRUE(absl::IsCancelled(listener->AwaitDone()));
  EXPECT_EQ(pipeline_levers_->live_inits, 0);
}

TEST_F(RequestLoaderTest, ACancelWhileAnInitImageIsInLineEndsTheRequestAtOnce) {
  pipeline_levers_->Hold(Call::kDecode);
  const auto finished = Submit("finished", "one", false);
  pipeline_levers_->AwaitHeld(Call::kDecode);
  PermitDecodes(1);
  const auto in_line = Submit("in line", "two", true);
  AwaitDecodes(1);
  while (tasks_[1]->loading()) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  tasks_[1]->Cancel(absl::CancelledError("the caller has gone"));
  loader_.EndIfUnwanted(tasks_[1]);
  EXPECT_TRUE(absl::IsCancelled(in_line->AwaitDone())) << "though the decode thread is held";
  EXPECT_FALSE(finished->IsDone());
  pipeline_levers_->LetGo();
  EXPECT_EQ(finished->AwaitDone(), absl::OkStatus());
  absl::MutexLock lock(&pipeline_levers_->mu);
  EXPECT_TRUE(pipeline_levers_->init_sizes.empty());
}

TEST_F(RequestLoaderTest, AnInitImageThatCannotBeEncodedEndsItsRequestAlone) {
  PermitDecodes(2);
  {
    absl::MutexLock lock(&pipeline_levers_->mu);
    pipeline_levers_->next_init_error = absl::InternalError("no latents");
  }
  EXPECT_EQ(Submit("one", "one", true)->AwaitDone(), absl::InternalError("no latents"));
  EXPECT_EQ(Submit("two", "one", true)->AwaitDone(), absl::OkStatus());
}

TEST_F(RequestLoaderTest, AFinishedImageWaitsForOneInitImageAtMost) {
  PermitDecodes(12);
  pipeline_levers_->Hold(Call::kEncodeInit);
  for (int i = 0; i < 12; ++i) {
    Submit("slow" + std::to_string(i), "one", true);
  }
  pipeline_levers_->AwaitHeld(Call::kEncodeInit);
  Submit("finished", "one", false);
  while (scheduler_.decode_line().length() == 0) {
    absl::SleepFor(absl::Milliseconds(1));
  }
  pipeline_levers_->Hold(Call::kDecode);  // which lets the init image go
  pipeline_levers_->AwaitHeld(Call::kDecode);
  absl::MutexLock lock(&pipeline_levers_->mu);
  EXPECT_EQ(pipeline_levers_->init_sizes.size(), 1u);
}

TEST_F(RequestLoaderTest, ACancelWhileAnAdapterIsLoadedEndsTheRequest) {
  store_levers_->Hold();
  const auto listener = Submit("one", "one", false, {{"a", 1, 1}});
  store_levers_->AwaitHeld();
  tasks_[0]->Cancel(absl::CancelledError("the caller has gone"));
  loader_.EndIfUnwanted(tasks_[0]);
  EXPECT_FALSE(listener->IsDone());  // the load is under way
  store_levers_->LetGo();
  EXPECT_TRUE(absl::IsCancelled(listener->AwaitDone()));
}

}  // namespace
}  // namespace hotlora
