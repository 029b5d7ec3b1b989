#include "server/sdapi_service.h"

#include <future>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include <nlohmann/json.hpp>

#include "tests/server/serving.h"

namespace hotlora {
namespace {

using Json = nlohmann::json;
using sdapi::v1::GenerateRequest;
using sdapi::v1::GenerateResponse;

class SdapiServiceTest : public ServingTest {
 protected:
  using Stub = sdapi::v1::SdapiService::Stub;

  void StartSdapi(ServerOptions options = {}) {
    Start(std::move(options));
    stub_ = sdapi::v1::SdapiService::NewStub(channel_);
  }

  static GenerateRequest Asked() {
    GenerateRequest request;
    request.set_prompt("a lighthouse");
    request.set_seed(7);
    request.set_steps(4);
    return request;
  }

  struct Answer {
    grpc::Status status;
    GenerateResponse response;
  };
  std::future<Answer> Generate(const GenerateRequest& request, const std::string& token = "") {
    return std::async(std::launch::async, [this, request, token] {
      Answer answer;
      auto context = Context(token);
      answer.status = stub_->Txt2Img(context.get(), request, &answer.response);
      return answer;
    });
  }

  // The JSON that a call without parameters answers with.
  template <typename Request>
  Json Ask(grpc::Status (Stub::*call)(grpc::ClientContext*, const Request&, google::api::HttpBody*),
           const std::string& token = "") {
    auto context = Context(token);
    google::api::HttpBody body;
    const grpc::Status status = (stub_.get()->*call)(context.get(), {}, &body);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(body.content_type(), "application/json");
    return Json::parse(body.data());
  }
  Json Progress(const std::string& token = "") { return Ask(&Stub::GetProgress, token); }

  grpc::Status Interrupt(const std::string& token = "") {
    auto context = Context(token);
    sdapi::v1::InterruptResponse response;
    return stub_->Interrupt(context.get(), {}, &response);
  }

  static FinishedImage Finished(uint32_t index) {
    FinishedImage image = ImageOf(index, 100);
    image.parameters = absl::StrCat("a lighthouse, ", index);
    return image;
  }

  std::unique_ptr<Stub> stub_;
};

TEST_F(SdapiServiceTest, AnswersWithImagesInOrderAndWhatMadeThem) {
  StartSdapi();
  auto request = Asked();
  request.set_batch_size(2);
  auto call = Generate(request);
  const auto submission = engine_.AwaitSubmission();
  EXPECT_EQ(submission.request.prompt, "a lighthouse");
  EXPECT_EQ(submission.request.num_images, 2u);
  EXPECT_EQ(submission.request.width, 512u);
  EXPECT_FALSE(submission.request.caller.empty());
  submission.listener->OnImage(Finished(1));
  submission.listener->OnImage(Finished(0));
  submission.listener->OnEnd(absl::OkStatus(), {});
  const Answer answer = call.get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.response.images_size(), 2);
  EXPECT_EQ(answer.response.images(0), ImageOf(0, 100).data);
  EXPECT_EQ(answer.response.images(1), ImageOf(1, 100).data);
  EXPECT_EQ(answer.response.parameters().fields().at("steps").number_value(), 4);
  const Json info = Json::parse(answer.response.info());
  EXPECT_EQ(info["all_seeds"], Json({7, 8}));
  EXPECT_EQ(info["infotexts"], Json({"a lighthouse, 0", "a lighthouse, 1"}));
  EXPECT_EQ(Counted("Txt2Img", "OK"), 1);
}

TEST_F(SdapiServiceTest, SendsNoImagesIfTheCallerWantsNone) {
  StartSdapi();
  auto request = Asked();
  request.set_send_images(false);
  auto call = Generate(request);
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnImage(Finished(0));
  submission.listener->OnEnd(absl::OkStatus(), {});
  const Answer answer = call.get();
  ASSERT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.response.images_size(), 0);
  EXPECT_EQ(Json::parse(answer.response.info())["seed"], 7);
}

TEST_F(SdapiServiceTest, RefusalsNameTheFieldsOfTheApi) {
  StartSdapi();
  auto request = Asked();
  request.set_cfg_scale(1000);
  request.set_tiling(true);
  auto context = Context();
  GenerateResponse response;
  const grpc::Status status = stub_->Txt2Img(context.get(), request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Reason(status), "INVALID_REQUEST");
  EXPECT_TRUE(absl::StrContains(status.error_message(), "tiling is true")) << status.error_message();
  EXPECT_TRUE(absl::StrContains(status.error_message(), "cfg_scale is 1000")) << status.error_message();
  EXPECT_EQ(FindDetail<google::rpc::BadRequest>(status)->field_violations_size(), 2);
  EXPECT_EQ(engine_.submit_count(), 0);

  // The engine's own refusal, and one that comes after admission.
  auto second = Asked();
  second.set_cfg_scale(1000);
  auto second_context = Context();
  EXPECT_TRUE(absl::StartsWith(stub_->Txt2Img(second_context.get(), second, &response).error_message(),
                               "1 bad field: cfg_scale is 1000"));
  auto call = Generate(Asked());
  engine_.AwaitSubmission().listener->OnEnd(InvalidRequest({{"init_image", "is cut off"}}), {});
  EXPECT_EQ(call.get().status.error_message(), "1 bad field: init_images[0] is cut off");
}

TEST_F(SdapiServiceTest, NeedsAnInitImageForImg2Img) {
  StartSdapi();
  auto context = Context();
  GenerateResponse response;
  const grpc::Status status = stub_->Img2Img(context.get(), Asked(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(absl::StrContains(status.error_message(), "init_images has 0 images")) << status.error_message();
  EXPECT_EQ(Counted("Img2Img", "INVALID_ARGUMENT"), 1);
}

TEST_F(SdapiServiceTest, ProgressFollowsARequest) {
  StartSdapi();
  EXPECT_EQ(Progress()["state"]["job_count"], 0);
  auto call = Generate(Asked());
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnWaiting({3, WaitStage::kQueue, 1.0});
  EXPECT_EQ(Progress()["textinfo"], "place 3 in the queue");
  EXPECT_EQ(Progress()["progress"], 0.0);
  submission.listener->OnProgress({0, 1, 4, 0.1, "jpeg"});
  const Json progress = Progress();
  EXPECT_EQ(progress["progress"], 0.25);
  EXPECT_GE(progress["eta_relative"], 0.0);
  EXPECT_EQ(progress["state"]["job"], "txt2img");
  EXPECT_EQ(progress["state"]["job_count"], 1);
  EXPECT_EQ(progress["state"]["sampling_step"], 1);
  EXPECT_EQ(progress["state"]["sampling_steps"], 4);
  EXPECT_EQ(progress["current_image"], "anBlZw==");
  EXPECT_EQ(progress["textinfo"], nullptr);
  submission.listener->OnImage(Finished(0));
  EXPECT_EQ(Progress()["state"]["job_no"], 1);
  submission.listener->OnEnd(absl::OkStatus(), {});
  EXPECT_TRUE(call.get().status.ok());
  EXPECT_EQ(Progress()["state"]["job_count"], 0);
  EXPECT_EQ(Progress()["progress"], 0.0);
}

TEST_F(SdapiServiceTest, InterruptEndsARequestThatHasNoImage) {
  StartSdapi();
  EXPECT_TRUE(Interrupt().ok());  // nothing runs
  auto call = Generate(Asked());
  const auto submission = engine_.AwaitSubmission();
  EXPECT_TRUE(Interrupt().ok());
  const auto [id, why] = engine_.AwaitCancel();
  EXPECT_EQ(id, submission.admission.request_id);
  submission.listener->OnEnd(why, {});
  const Answer answer = call.get();
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(absl::StrContains(answer.status.error_message(), "interrupted")) << answer.status.error_message();
  EXPECT_EQ(Counted("Txt2Img", "CANCELLED"), 1);
}

TEST_F(SdapiServiceTest, InterruptKeepsTheImagesThatAreFinished) {
  StartSdapi();
  auto request = Asked();
  request.set_n_iter(3);
  auto call = Generate(request);
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnImage(Finished(1));
  EXPECT_TRUE(Interrupt().ok());
  submission.listener->OnEnd(engine_.AwaitCancel().second, {});
  const Answer answer = call.get();
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_EQ(answer.response.images_size(), 1);
  EXPECT_EQ(answer.response.images(0), ImageOf(1, 100).data);
  EXPECT_EQ(Json::parse(answer.response.info())["all_seeds"], Json({8}));
}

// A request that is interrupted and fails for another reason, such as a deadline, has failed.
TEST_F(SdapiServiceTest, InterruptDoesNotHideAnError) {
  StartSdapi();
  auto call = Generate(Asked());
  const auto submission = engine_.AwaitSubmission();
  submission.listener->OnImage(Finished(0));
  EXPECT_TRUE(Interrupt().ok());
  submission.listener->OnEnd(MakeError(absl::StatusCode::kUnavailable, "DRAINING", "the server stops"), {});
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SdapiServiceTest, ProgressAndInterruptKnowTheCallersOwnRequestsAlone) {
  const std::string one = "token-of-the-first", two = "token-of-the-second";
  StartSdapi(WithTokens({one + " generate", two + " generate", "token-of-a-reader adapters.read"}));
  auto first = Generate(Asked(), one);
  const auto of_one = engine_.AwaitSubmission();
  auto second = Generate(Asked(), two);
  const auto of_two = engine_.AwaitSubmission();
  of_one.listener->OnProgress({0, 1, 4, 0.1, ""});
  of_two.listener->OnProgress({0, 3, 4, 0.1, "secret"});
  EXPECT_EQ(Progress(one)["progress"], 0.25);
  EXPECT_EQ(Progress(one)["state"]["job_count"], 1);
  EXPECT_EQ(Progress(one)["current_image"], nullptr);
  EXPECT_EQ(Progress(two)["state"]["sampling_step"], 3);

  EXPECT_TRUE(Interrupt(two).ok());
  EXPECT_EQ(engine_.AwaitCancel().first, of_two.admission.request_id);
  of_two.listener->OnEnd(engine_.AwaitCancel().second, {});
  EXPECT_EQ(second.get().status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(Progress(two)["state"]["job_count"], 0);
  EXPECT_EQ(Progress(one)["state"]["job_count"], 1);
  of_one.listener->OnImage(Finished(0));
  of_one.listener->OnEnd(absl::OkStatus(), {});
  EXPECT_TRUE(first.get().status.ok());

  EXPECT_EQ(Interrupt("token-of-a-reader").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Interrupt().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// A client of AUTOMATIC1111 has a user and a password; the request is the same caller's as with Bearer.
TEST_F(SdapiServiceTest, TakesBasicAuthentication) {
  StartSdapi(WithTokens({"token-of-the-first generate"}));
  auto call = Generate(Asked(), "token-of-the-first");
  const auto submission = engine_.AwaitSubmission();
  auto context = Context();
  context->AddMetadata("authorization", "Basic bWU6dG9rZW4tb2YtdGhlLWZpcnN0");  // me:token-of-the-first
  google::api::HttpBody body;
  ASSERT_TRUE(stub_->GetProgress(context.get(), {}, &body).ok());
  EXPECT_EQ(Json::parse(body.data())["state"]["job_count"], 1);
  submission.listener->OnEnd(MakeError(absl::StatusCode::kInternal, "INTERNAL", "no image"), {});
  EXPECT_EQ(call.get().status.error_code(), grpc::StatusCode::INTERNAL);
}

TEST_F(SdapiServiceTest, ListsAndOptionsAreJson) {
  AdapterInfo ink;
  ink.name = "ink";
  engine_.AddAdapter(ink);
  StartSdapi();
  EXPECT_EQ(Ask(&Stub::ListLoras)[0]["name"], "ink");
  EXPECT_EQ(Ask(&Stub::ListControlModels), (Json{{"model_list", Json::array()}}));
  EXPECT_EQ(Ask(&Stub::ListControlModules)["module_list"][0], "none");
  EXPECT_EQ(Ask(&Stub::ListSamplers)[0]["name"], "Euler");
  EXPECT_EQ(Ask(&Stub::ListSchedulers)[0]["label"], "Automatic");
  EXPECT_EQ(Ask(&Stub::ListSdModels)[0]["model_name"], "fake");
  const Json options = Ask(&Stub::GetOptions);
  EXPECT_EQ(options["sd_model_checkpoint"], "fake [aaaaaaaaaa]");

  sdapi::v1::SetOptionsRequest set;
  (*set.mutable_options()->mutable_fields())["sd_model_checkpoint"].set_string_value("fake");
  sdapi::v1::SetOptionsResponse response;
  auto context = Context();
  EXPECT_TRUE(stub_->SetOptions(context.get(), set, &response).ok());
  (*set.mutable_options()->mutable_fields())["sd_model_checkpoint"].set_string_value("another");
  auto second = Context();
  const grpc::Status refused = stub_->SetOptions(second.get(), set, &response);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_TRUE(absl::StrContains(refused.error_message(), "sd_model_checkpoint is \"another\""))
      << refused.error_message();
  for (const char* method : {"ListLoras", "ListControlModels", "ListControlModules", "ListSamplers", "ListSchedulers",
                             "ListSdModels", "GetOptions", "SetOptions"}) {
    EXPECT_EQ(Counted(method, "OK"), 1) << method;
  }
}

TEST_F(SdapiServiceTest, IsUnavailableUntilTheServerServes) {
  Start({}, /*serve=*/false);
  stub_ = sdapi::v1::SdapiService::NewStub(channel_);
  auto context = Context();
  GenerateResponse response;
  const grpc::Status status = stub_->Txt2Img(context.get(), Asked(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Reason(status), "STARTING");
}

}  // namespace
}  // namespace hotlora
