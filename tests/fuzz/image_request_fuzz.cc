// A request for images from its bytes to the validated job, its prompts parsed, or to the answer that refuses it.

#include <cstddef>
#include <cstdint>
#include <memory>

#include <google/protobuf/stubs/logging.h>

#include "hotlora/v1/images.pb.h"
#include "tests/fuzz/fuzzed_message.h"
#include "tests/fuzz/request_checks.h"

std::unique_ptr<google::protobuf::Message> hotlora::NewFuzzedMessage() {
  return std::make_unique<v1::GenerateImagesRequest>();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool silent = google::protobuf::SetLogHandler(nullptr) != nullptr;  // else a line for each bad text
  (void)silent;
  hotlora::v1::GenerateImagesRequest message;
  if (message.ParseFromArray(data, static_cast<int>(size))) {
    hotlora::CheckMapped(hotlora::FromProto(message), [](const absl::Status& status) { return status; });
  }
  return 0;
}
