#include "src/nn/adapter_set.h"

#include "absl/strings/str_format.h"

namespace hotlora {

std::string AdapterSet::Fingerprint() const {
  std::string fingerprint;
  for (const WeightedAdapter& adapter : adapters) {
    // %a writes every bit of a double. Adding 0.0 makes -0.0 the 0.0 that it equals.
    absl::StrAppendFormat(&fingerprint, "%s*%a,%a;", adapter.content_sha256, adapter.weight + 0.0,
                          adapter.text_encoder_weight + 0.0);
  }
  return fingerprint;
}

}  // namespace hotlora
