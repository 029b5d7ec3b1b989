#include "server/openai_service.h"

#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"

#include "tests/server/serving.h"

namespace hotlora {
namespace {

using openai::v1::CreateImageRequest;
using openai::v1::CreateImageResponse;

class OpenAiServiceTest : public ServingTest {
 protected:
  void StartOpenAi(ServerOptions options = {}) {
    Start(std::move(options));
    stub_ = openai::v1::ImagesService::NewStub(channel_);
    for (const char* name : {"ink", "styles/neon"}) {
      AdapterInfo info;
      info.name = name;
      engine_.AddAdapter(std::move(info));
    }
  }

  static CreateImageRequest Asked() {
    CreateImageRequest request;
    request.set_prompt("a lighthouse");
    request.set_model("styles/neon:0.5+ink");
    request.set_n(2);
    return request;
  }

  struct Answer {
    grpc::Status status;
    CreateImageResponse response;
  };
  std::future<Answer> Create(const CreateImageRequest& request, const std::string& token = "") {
    return std::async(std::launch::async, [this, request, token] {
      Answer answer;
      auto context = Context(token);
      answer.status = stub_->CreateImage(context.get(), request, &answer.response);
      return answer;
    });
  }

  grpc::Status Retrieve(const std::string& model, openai::v1::Model* answer, const std::string& token = "") {
    auto context = Context(token);
    openai::v1::RetrieveModelRequest request;
    request.set_model(model);
    return stub_->RetrieveModel(context.get(), request, answer);
  }

  std::unique_ptr<openai::v1::ImagesService::Stub> stub_;
};

TEST_F(OpenAiServiceTest, AnswersWithImagesInTheirOrder) {
  StartOpenAi();
  const int64_t before = absl::ToUnixSeconds(absl::Now());
  auto call = Create(Asked());
  const auto submission = engine_.AwaitSubmission();
  EXPECT_EQ(submission.request.prompt, "a lighthouse");
  EXPECT_EQ(submission.request.num_images, 2u);
  EXPECT_FALSE(submission.request.caller.empty());
  ASSERT_EQ(submission.request.adapters.size(), 2u);
  EXPECT_EQ(submission.request.adapters[0].name, "styles/neon");
  EXPECT_EQ(submission.request.adapters[0].weight, 0.5);
  EXPECT_EQ(submission.request.adapters[1].name, "ink");
  submission.listener->OnProgress({0, 1, 2});
  submission.listener->OnImage(ImageOf(1, 100));
  submission.listener->OnImage(ImageOf(0, 100));
  submission.listener->OnEnd(absl::OkStatus(), {});
  const Answer answer = call.get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.response.data_size(), 2);
  for (uint32_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answer.response.data(static_cast<int>(i)).b64_json(), ImageOf(i, 100).data);
    EXPECT_EQ(answer.response.data(static_cast<int>(i)).seed(), 7 + i);
  }
  EXPECT_EQ(answer.response.size(), "512x512");
  EXPECT_EQ(answer.response.output_format(), "png");
  EXPECT_GE(answer.response.created(), before);
  EXPECT_LE(answer.response.created(), absl::ToUnixSeconds(absl::Now()));
  EXPECT_EQ(Counted("CreateImage", "OK"), 1);
}

TEST_F(OpenAiServiceTest, ListsEveryBadFieldByItsNameInThisApi) {
  StartOpenAi();
  CreateImageRequest request = Asked();
  request.set_n(17);
  request.set_size("12x64");
  request.set_model("ink:nan+ink");
  request.set_response_format("url");
  const grpc::Status status = Create(request).get().status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Reason(status), "INVALID_REQUEST");
  const auto bad = FindDetail<google::rpc::BadRequest>(status);
  ASSERT_TRUE(bad.has_value());
  std::vector<std::string> fields;
  for (const auto& violation : bad->field_violations()) {
    fields.push_back(violation.field());
    EXPECT_TRUE(absl::StrContains(status.error_message(), violation.description())) << status.error_message();
  }
  EXPECT_EQ(absl::StrJoin(fields, " "), "response_format size n model model");
  EXPECT_EQ(Counted("CreateImage", "INVALID_ARGUMENT"), 1);
}

TEST_F(OpenAiServiceTest, RefusalsOfTheEngineAndFailuresArePassedOn) {
  StartOpenAi();
  engine_.RefuseNext(
      MakeError(absl::StatusCode::kResourceExhausted, "QUEUE_FULL", "the queue is full", absl::Seconds(2)));
  grpc::Status status = Create(Asked()).get().status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(FindDetail<google::rpc::RetryInfo>(status)->retry_delay().seconds(), 2);

  auto call = Create(Asked());
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnEnd(MakeError(absl::StatusCode::kNotFound, "ADAPTER_NOT_FOUND", "no adapter \"ink\""), {});
  status = call.get().status;
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Reason(status), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(Counted("CreateImage", "NOT_FOUND"), 1);
}

TEST_F(OpenAiServiceTest, ACallerWhoLeavesEndsTheRequest) {
  StartOpenAi();
  auto context = Context();
  CreateImageResponse response;
  auto pending = std::async(std::launch::async, [&] { return stub_->CreateImage(context.get(), Asked(), &response); });
  const auto submission = engine_.AwaitSubmission();
  context->TryCancel();
  const auto [id, why] = engine_.AwaitCancel();
  EXPECT_EQ(id, submission.admission.request_id);
  submission.listener->OnEnd(why, {});
  EXPECT_EQ(pending.get().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(OpenAiServiceTest, ListsAndRetrievesModels) {
  StartOpenAi();
  auto context = Context();
  openai::v1::ListModelsResponse models;
  ASSERT_TRUE(stub_->ListModels(context.get(), {}, &models).ok());
  ASSERT_EQ(models.data_size(), 3);
  openai::v1::Model one;
  for (const openai::v1::Model& model : models.data()) {
    ASSERT_TRUE(Retrieve(model.id(), &one).ok()) << model.id();
    EXPECT_EQ(one.SerializeAsString(), model.SerializeAsString());
  }
  EXPECT_EQ(models.data(2).id(), "styles/neon");
  ASSERT_TRUE(Retrieve("styles%2Fneon:.5+ink", &one).ok());
  EXPECT_EQ(one.id(), "styles/neon:0.5+ink");
  const grpc::Status unknown = Retrieve("ink+dall-e-2", &one);
  EXPECT_EQ(unknown.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(absl::StrContains(unknown.error_message(), "dall-e-2"));
  const grpc::Status bad = Retrieve("ink:strong", &one);
  EXPECT_EQ(bad.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FindDetail<google::rpc::BadRequest>(bad)->field_violations(0).field(), "model");
  EXPECT_EQ(Counted("ListModels", "OK"), 1);
  EXPECT_EQ(Counted("RetrieveModel", "OK"), 4);
  EXPECT_EQ(Counted("RetrieveModel", "NOT_FOUND"), 1);
}

TEST_F(OpenAiServiceTest, ATokenNeedsTheScope) {
  const std::string painter = "painter-token-123", reader = "reader-token-1234";
  StartOpenAi(WithTokens({painter + " generate", reader + " adapters.read"}));
  engine_.SetScript([](const FakeEngine::Submission& submission) {
    submission.listener->OnImage(ImageOf(0, 10));
    submission.listener->OnEnd(absl::OkStatus(), {});
  });
  EXPECT_TRUE(Create(Asked(), painter).get().status.ok());
  EXPECT_EQ(Create(Asked(), reader).get().status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Create(Asked()).get().status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  openai::v1::Model model;
  EXPECT_TRUE(Retrieve("ink", &model, reader).ok());
  EXPECT_EQ(Retrieve("ink", &model, painter).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  openai::v1::ListModelsResponse models;
  EXPECT_EQ(stub_->ListModels(Context(painter).get(), {}, &models).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(stub_->ListModels(Context(reader).get(), {}, &models).ok());
}

}  // namespace
}  // namespace hotlora
