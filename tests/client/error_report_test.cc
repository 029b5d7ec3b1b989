#include "client/error_report.h"

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

grpc::Status StatusWith(grpc::StatusCode code, const std::string& message,
                        const std::vector<const google::protobuf::Message*>& details) {
  google::rpc::Status rich;
  for (const google::protobuf::Message* detail : details) {
    rich.add_details()->PackFrom(*detail);
  }
  return grpc::Status(code, message, rich.SerializeAsString());
}

TEST(ErrorReportTest, ListsEveryBadField) {
  google::rpc::ErrorInfo info;
  info.set_reason("INVALID_REQUEST");
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("width");
  violation->set_description("is 13; allowed are multiples of 8");
  violation = bad.add_field_violations();
  violation->set_field("adapters[0].weight");
  violation->set_description("is 11; allowed are -10 to 10");
  const ErrorReport report =
      MakeErrorReport(StatusWith(grpc::StatusCode::INVALID_ARGUMENT, "2 bad fields: ...", {&info, &bad}), "r1");
  EXPECT_EQ(ToText(report),
            "error: INVALID_ARGUMENT (INVALID_REQUEST): the server refuses the request\n"
            "  width is 13; allowed are multiples of 8\n"
            "  adapters[0].weight is 11; allowed are -10 to 10\n"
            "  request id r1\n");
  const nlohmann::json json = ToJson(report)["error"];
  EXPECT_EQ(json["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(json["reason"], "INVALID_REQUEST");
  EXPECT_EQ(json["fields"][1]["field"], "adapters[0].weight");
  EXPECT_EQ(json["request_id"], "r1");
  EXPECT_FALSE(json.contains("retry_seconds"));
}

TEST(ErrorReportTest, SaysWhenToTryAgain) {
  google::rpc::ErrorInfo info;
  info.set_reason("QUEUE_FULL");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(1);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  const ErrorReport report =
      MakeErrorReport(StatusWith(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full", {&retry, &info}), "");
  EXPECT_EQ(ToText(report),
            "error: RESOURCE_EXHAUSTED (QUEUE_FULL): the queue is full\n"
            "  try again in 1.5 s\n");
  EXPECT_EQ(ToJson(report)["error"]["retry_seconds"], 1.5);
}

TEST(ErrorReportTest, ErrorsWithoutDetailsStillHelp) {
  const std::string down =
      ToText(MakeErrorReport(grpc::Status(grpc::StatusCode::UNAVAILABLE, "connection refused"), ""));
  EXPECT_EQ(down, "error: UNAVAILABLE: connection refused\n  is the server running, and is --server right?\n");
  const std::string token = ToText(MakeErrorReport(grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "no"), ""));
  EXPECT_NE(token.find("--token-file"), std::string::npos);
  const ErrorReport garbage = MakeErrorReport(grpc::Status(grpc::StatusCode::INTERNAL, "x", "\xFF\xFFgarbage"), "");
  EXPECT_EQ(ToText(garbage), "error: INTERNAL: x\n");
}

}  // namespace
}  // namespace hotlora
