#include <future>
#include <thread>
#include <vector>

#include "server/image_event_queue.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

class ImageServiceTest : public ServingTest {
 protected:
  void SetUp() override {
    Start();
    stub_ = v1::ImageService::NewStub(channel_);
  }

  std::unique_ptr<v1::ImageService::Stub> stub_;
};

TEST_F(ImageServiceTest, StreamsEventsInOrderAndSummaryLast) {
  auto context = Context();
  auto request = Request();
  request.set_request_id("order-1");
  auto reader = stub_->StreamGenerateImages(context.get(), request);
  const auto submission = engine_.AwaitSubmission();
  EXPECT_EQ(submission.request.prompt, "a lighthouse");

  v1::GenerateImagesEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.accepted().request_id(), "order-1");
  EXPECT_EQ(event.accepted().seed(), 7u);

  submission.listener->OnWaiting({2, WaitStage::kAdapter, 1.5});
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.waiting().stage(), "adapter");
  EXPECT_EQ(event.waiting().queue_position(), 2u);
  EXPECT_EQ(event.waiting().estimated_seconds(), 1.5);

  submission.listener->OnProgress({0, 1, 2, 0.25});
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.progress().step(), 1u);
  EXPECT_EQ(event.progress().total_steps(), 2u);

  submission.listener->OnImage(ImageOf(0, 100));
  ImageSummary summary;
  summary.total_seconds = 3;
  summary.adapters.push_back({"ink", "ff", 0.5, AdapterTier::kHost, 12, {"odd.key"}, {"a note"}});
  submission.listener->OnEnd(absl::OkStatus(), summary);
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.image().data(), ImageOf(0, 100).data);
  EXPECT_EQ(event.image().total_bytes(), 100u);
  EXPECT_EQ(event.image().format(), v1::IMAGE_FORMAT_PNG);
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.summary().total_seconds(), 3);
  ASSERT_EQ(event.summary().adapters_size(), 1);
  EXPECT_EQ(event.summary().adapters(0).tier_found(), v1::ADAPTER_TIER_HOST);
  EXPECT_EQ(event.summary().adapters(0).unmatched_keys(0), "odd.key");
  EXPECT_EQ(event.summary().adapters(0).notes(0), "a note");
  // Counted before the last message is sent.
  EXPECT_EQ(Counted("StreamGenerateImages", "OK"), 1);
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(Trailer(*context, "x-request-id"), "order-1");
  EXPECT_EQ(Counted("StreamGenerateImages", "OK"), 1);
}

TEST_F(ImageServiceTest, SplitsLargeImagesIntoPartsInOrder) {
  auto context = Context();
  auto reader = stub_->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  const size_t bytes = (size_t{5} << 20) / 2;
  submission.listener->OnImage(ImageOf(0, bytes));
  submission.listener->OnEnd(absl::OkStatus(), {});
  v1::GenerateImagesEvent event;
  std::string data;
  int parts = 0;
  while (reader->Read(&event)) {
    if (event.has_image()) {
      ++parts;
      EXPECT_EQ(event.image().index(), 0u);
      EXPECT_EQ(event.image().total_bytes(), bytes);
      EXPECT_LE(event.image().data().size(), ImageEventQueue::kPartBytes);
      data += event.image().data();
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(parts, 3);
  EXPECT_EQ(data, ImageOf(0, bytes).data);
}

TEST_F(ImageServiceTest, RefusalCarriesDetailsAndNothingBesideTrailers) {
  engine_.RefuseNext(MakeError(absl::StatusCode::kResourceExhausted, "the queue is full",
                               ErrorDetails{"QUEUE_FULL", {}, absl::Milliseconds(1500)}));
  auto context = Context();
  auto request = Request();
  request.set_request_id("refused-1");
  auto reader = stub_->StreamGenerateImages(context.get(), request);
  v1::GenerateImagesEvent event;
  EXPECT_FALSE(reader->Read(&event));
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full");
  EXPECT_EQ(Reason(status), "QUEUE_FULL");
  const auto retry = FindDetail<google::rpc::RetryInfo>(status);
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 500'000'000);
  EXPECT_EQ(Trailer(*context, "grpc-retry-pushback-ms"), "1500");
  EXPECT_EQ(Trailer(*context, "x-request-id"), "refused-1");
  EXPECT_EQ(Counted("StreamGenerateImages", "RESOURCE_EXHAUSTED"), 1);
}

// Only an answer without initial metadata is retried: gRFC A6 counts the call as committed
// otherwise.
TEST_F(ImageServiceTest, CallersRetryPolicyRetriesRefusals) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(
      R"({"methodConfig": [{"name": [{"service": "hotlora.v1.ImageService"}],
      "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1,
                      "retryableStatusCodes": ["RESOURCE_EXHAUSTED"]}}]})");
  const auto stub = v1::ImageService::NewStub(Connect(arguments));
  const auto full = MakeError(absl::StatusCode::kResourceExhausted, "the queue is full",
                              ErrorDetails{"QUEUE_FULL", {}, absl::Milliseconds(1)});
  engine_.SetScript([](const FakeEngine::Submission& s) { s.listener->OnEnd(absl::OkStatus(), {}); });

  engine_.RefuseNext(full);
  auto context = Context();
  auto reader = stub->StreamGenerateImages(context.get(), Request());
  v1::GenerateImagesEvent event;
  EXPECT_TRUE(reader->Read(&event));
  EXPECT_TRUE(event.has_accepted());
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(engine_.submit_count(), 2);

  engine_.RefuseNext(full);
  auto unary_context = Context();
  v1::GenerateImagesResponse response;
  EXPECT_TRUE(stub->GenerateImages(unary_context.get(), Request(), &response).ok());
  EXPECT_EQ(engine_.submit_count(), 4);
}

TEST_F(ImageServiceTest, PushbackForbidsRetriesThatCannotHelp) {
  engine_.RefuseNext(MakeError(absl::StatusCode::kResourceExhausted, "OUT_OF_MEMORY", "too big"));
  auto context = Context();
  v1::GenerateImagesResponse response;
  EXPECT_EQ(stub_->GenerateImages(context.get(), Request(), &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Trailer(*context, "grpc-retry-pushback-ms"), "-1");
}

TEST_F(ImageServiceTest, ListsEveryBadFieldWithUnknownEnumNumbers) {
  auto request = Request();
  request.set_width(13);
  request.set_steps(0);
  request.set_sampler(static_cast<v1::Sampler>(99));
  request.set_format(static_cast<v1::ImageFormat>(77));
  for (int i = 0; i < 20; ++i) {
    request.add_adapters()->set_name(absl::StrCat("a", i));
  }
  auto context = Context();
  v1::GenerateImagesResponse response;
  const grpc::Status status = stub_->GenerateImages(context.get(), request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Reason(status), "INVALID_REQUEST");
  const auto bad = FindDetail<google::rpc::BadRequest>(status);
  ASSERT_TRUE(bad.has_value());
  std::map<std::string, std::string> fields;
  for (const auto& violation : bad->field_violations()) {
    fields[violation.field()] = violation.description();
  }
  EXPECT_EQ(fields.size(), 5u);
  EXPECT_TRUE(absl::StrContains(fields["sampler"], "99"));
  EXPECT_TRUE(absl::StrContains(fields["format"], "77"));
  EXPECT_TRUE(absl::StrContains(fields["adapters"], "20"));
  EXPECT_EQ(fields.count("width"), 1u);
  EXPECT_EQ(fields.count("steps"), 1u);
  EXPECT_EQ(engine_.submit_count(), 0);
}

TEST_F(ImageServiceTest, AnswersWholeImagesAtOnce) {
  auto pending = std::async(std::launch::async, [&] {
    auto context = Context();
    auto request = Request();
    request.set_request_id("whole-1");
    request.set_num_images(2);
    v1::GenerateImagesResponse response;
    EXPECT_TRUE(stub_->GenerateImages(context.get(), request, &response).ok());
    EXPECT_EQ(Trailer(*context, "x-request-id"), "whole-1");
    return response;
  });
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnProgress({0, 1, 1});
  submission.listener->OnImage(ImageOf(0, 10));
  submission.listener->OnImage(ImageOf(1, size_t{3} << 20));
  submission.listener->OnEnd(absl::OkStatus(), {});
  const v1::GenerateImagesResponse response = pending.get();
  EXPECT_EQ(response.request_id(), "whole-1");
  ASSERT_EQ(response.images_size(), 2);
  EXPECT_EQ(response.images(1).data(), ImageOf(1, size_t{3} << 20).data);
  EXPECT_EQ(response.summary().server_version(), HOTLORA_VERSION);
  EXPECT_EQ(Counted("GenerateImages", "OK"), 1);
}

TEST_F(ImageServiceTest, RendersOneImageAsABodyWithItsMediaType) {
  auto pending = std::async(std::launch::async, [&] {
    auto context = Context();
    google::api::HttpBody body;
    EXPECT_TRUE(stub_->RenderImage(context.get(), Request(), &body).ok());
    return body;
  });
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnImage(ImageOf(0, 10));
  submission.listener->OnEnd(absl::OkStatus(), {});
  const google::api::HttpBody body = pending.get();
  EXPECT_EQ(body.content_type(), "image/png");
  EXPECT_EQ(body.data(), ImageOf(0, 10).data);
  EXPECT_EQ(Counted("RenderImage", "OK"), 1);
}

TEST_F(ImageServiceTest, RendersNoSecondImage) {
  auto context = Context();
  auto request = Request();
  request.set_num_images(2);
  google::api::HttpBody body;
  const grpc::Status status = stub_->RenderImage(context.get(), request, &body);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = FindDetail<google::rpc::BadRequest>(status);
  ASSERT_TRUE(bad.has_value());
  EXPECT_EQ(bad->field_violations(0).field(), "num_images");
  EXPECT_EQ(engine_.submit_count(), 0);
}

TEST_F(ImageServiceTest, PassesOnHowARequestFailed) {
  auto context = Context();
  auto reader = stub_->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnProgress({0, 1, 2});
  submission.listener->OnEnd(MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", "no adapter \"x\""), {});
  v1::GenerateImagesEvent event;
  while (reader->Read(&event)) {
    EXPECT_FALSE(event.has_summary());
  }
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Trailer(*context, "x-request-id"), submission.admission.request_id);
  EXPECT_EQ(Counted("StreamGenerateImages", "NOT_FOUND"), 1);
}

TEST_F(ImageServiceTest, CallersCancelReachesTheEngine) {
  auto context = Context();
  auto request = Request();
  request.set_request_id("cancel-1");
  auto reader = stub_->StreamGenerateImages(context.get(), request);
  const auto submission = engine_.AwaitSubmission();
  context->TryCancel();
  const auto [id, why] = engine_.AwaitCancel();
  EXPECT_EQ(id, "cancel-1");
  EXPECT_EQ(why.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Counted("StreamGenerateImages", "CANCELLED"), 0);
  submission.listener->OnImage(ImageOf(0, 100));
  submission.listener->OnEnd(why, {});
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  // The caller who left does not wait for the server, so the test must.
  while (Counted("StreamGenerateImages", "CANCELLED") == 0) {
    std::this_thread::yield();
  }
  EXPECT_EQ(Counted("StreamGenerateImages", "CANCELLED"), 1);
}

TEST_F(ImageServiceTest, PassedDeadlineReachesTheEngine) {
  auto context = Context();
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  v1::GenerateImagesResponse response;
  auto pending =
      std::async(std::launch::async, [&] { return stub_->GenerateImages(context.get(), Request(), &response); });
  const auto submission = engine_.AwaitSubmission();
  const auto [id, why] = engine_.AwaitCancel();
  EXPECT_EQ(why.code(), absl::StatusCode::kDeadlineExceeded);
  submission.listener->OnEnd(why, {});
  EXPECT_EQ(pending.get().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(Counted("GenerateImages", "DEADLINE_EXCEEDED"), 1);
}

TEST_F(ImageServiceTest, CallerWhoDoesNotReadGetsEveryImageAndTheLastProgress) {
  constexpr uint32_t kSteps = 20'000;
  auto context = Context();
  auto reader = stub_->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  for (uint32_t step = 1; step <= kSteps; ++step) {
    submission.listener->OnProgress({0, step, kSteps, 0.1});
  }
  submission.listener->OnImage(ImageOf(0, size_t{3} << 20));
  submission.listener->OnImage(ImageOf(1, 1000));
  submission.listener->OnEnd(absl::OkStatus(), {});
  v1::GenerateImagesEvent event;
  uint32_t last_step = 0;
  std::string images[2];
  bool summary = false;
  while (reader->Read(&event)) {
    EXPECT_FALSE(summary);
    summary = event.has_summary();
    if (event.has_progress()) {
      EXPECT_GT(event.progress().step(), last_step);
      last_step = event.progress().step();
    } else if (event.has_image()) {
      images[event.image().index()] += event.image().data();
    }
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(summary);
  EXPECT_EQ(last_step, kSteps);
  EXPECT_EQ(images[0], ImageOf(0, size_t{3} << 20).data);
  EXPECT_EQ(images[1], ImageOf(1, 1000).data);
}

TEST_F(ImageServiceTest, OverlongMessageIsRefused) {
  auto request = Request();
  request.set_init_image(std::string(size_t{33} << 20, 'x'));
  auto context = Context();
  v1::GenerateImagesResponse response;
  EXPECT_EQ(stub_->GenerateImages(context.get(), request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(engine_.submit_count(), 0);
}

// Every call ends in one of the ways it can, while others do; run under ThreadSanitizer for the
// races.
TEST_F(ImageServiceTest, ManyCallsEndOnceEachWhateverCallersAndEngineDo) {
  constexpr int kThreads = 4;
  constexpr int kCallsEach = 25;
  engine_.SetScript([](const FakeEngine::Submission& submission) {
    std::thread([listener = submission.listener, seed = submission.admission.seed] {
      for (uint32_t step = 1; step <= 5; ++step) {
        listener->OnProgress({0, step, 5});
      }
      FinishedImage image;
      image.data.resize(5000);
      listener->OnImage(std::move(image));
      listener->OnEnd(seed % 3 == 0 ? absl::Status(absl::StatusCode::kInternal, "broken") : absl::OkStatus(), {});
    }).detach();
  });
  std::vector<std::thread> callers;
  for (int thread = 0; thread < kThreads; ++thread) {
    callers.emplace_back([&, thread] {
      for (int i = 0; i < kCallsEach; ++i) {
        auto context = Context();
        auto request = Request();
        request.set_seed(static_cast<uint64_t>(i));
        auto reader = stub_->StreamGenerateImages(context.get(), request);
        v1::GenerateImagesEvent event;
        if ((i + thread) % 4 == 0) {
          reader->Read(&event);
          context->TryCancel();
        }
        while (reader->Read(&event)) {
        }
        const grpc::Status status = reader->Finish();
        EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::CANCELLED ||
                    status.error_code() == grpc::StatusCode::INTERNAL)
            << status.error_message();
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  server_->Stop(absl::Seconds(60));
  EXPECT_EQ(Counted("StreamGenerateImages", "OK") + Counted("StreamGenerateImages", "CANCELLED") +
                Counted("StreamGenerateImages", "INTERNAL"),
            kThreads * kCallsEach);
}

}  // namespace
}  // namespace hotlora
