// A request of AUTOMATIC1111's API from its bytes to the validated job or the answer that refuses it, and what the
// answer tells of it.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include <google/protobuf/stubs/logging.h>
#include <nlohmann/json.hpp>

#include "hotlora/sdapi/v1/sdapi.pb.h"
#include "server/sdapi_mapping.h"
#include "server/sdapi_options.h"
#include "tests/fuzz/fuzzed_message.h"
#include "tests/fuzz/request_checks.h"

std::unique_ptr<google::protobuf::Message> hotlora::NewFuzzedMessage() {
  return std::make_unique<sdapi::v1::GenerateRequest>();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool silent = google::protobuf::SetLogHandler(nullptr) != nullptr;  // else a line for each bad text
  (void)silent;
  hotlora::sdapi::v1::GenerateRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  hotlora::ModelInfo model;
  model.name = "model";
  model.sha256 = std::string(64, 'a');
  for (const hotlora::SdapiTask task : {hotlora::SdapiTask::kTxt2Img, hotlora::SdapiTask::kImg2Img}) {
    const hotlora::sdapi::v1::GenerateRequest whole = hotlora::WithDefaults(message, task);
    hotlora::CheckMapped(hotlora::FromProto(whole, task, model), hotlora::InSdapiWords);
    hotlora::Check(hotlora::ToParameters(whole).fields().contains("seed"));
    const std::string info = hotlora::ToInfo(whole, task, {{7, 64, 64, whole.prompt()}}, {}, model, absl::UnixEpoch());
    hotlora::Check(nlohmann::json::parse(info).at("seed") == 7);
  }
  if (const absl::Status status = hotlora::OptionsInForce(model).Check(message.override_settings()); !status.ok()) {
    hotlora::CheckRefusal(status);
  }
  return 0;
}
