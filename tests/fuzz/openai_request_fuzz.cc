// A request of OpenAI's Images API from its bytes to the validated job or the answer that refuses it, and its model
// read, written and read again.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <google/protobuf/stubs/logging.h>

#include "hotlora/openai/v1/openai.pb.h"
#include "server/openai_mapping.h"
#include "src/base/resource_name.h"
#include "tests/fuzz/fuzzed_message.h"
#include "tests/fuzz/request_checks.h"

std::unique_ptr<google::protobuf::Message> hotlora::NewFuzzedMessage() {
  return std::make_unique<openai::v1::CreateImageRequest>();
}

namespace {

void CheckModel(const std::vector<hotlora::AdapterRef>& adapters) {
  for (const hotlora::AdapterRef& adapter : adapters) {
    if (!hotlora::NormalizeName(adapter.name).ok()) {
      return;
    }
  }
  std::vector<hotlora::FieldViolation> violations;
  const auto again = hotlora::ReadModel(hotlora::ToModel(adapters).id(), violations);
  hotlora::Check(violations.empty() && again.size() == adapters.size());
  for (size_t i = 0; i < again.size(); ++i) {
    const double before = adapters[i].weight.value_or(1.0), after = again[i].weight.value_or(1.0);
    hotlora::Check(again[i].name == adapters[i].name && (after == before || before != before));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool silent = google::protobuf::SetLogHandler(nullptr) != nullptr;  // else a line for each bad text
  (void)silent;
  hotlora::openai::v1::CreateImageRequest message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) {
    return 0;
  }
  const hotlora::MappedImageRequest mapped = hotlora::FromProto(message);
  hotlora::CheckMapped(mapped, hotlora::InOpenAiWords);
  if (mapped.violations.empty()) {
    CheckModel(mapped.request.adapters);
  }
  return 0;
}
