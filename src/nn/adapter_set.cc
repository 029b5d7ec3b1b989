#include "src/nn/adapter_set.h"

#include <string>

#include "absl/strings/str_format.h"

namespace hotlora {

std::string AdapterSet::Fingerprint() const {
  std::string fingerprint;
  for (const WeightedAdapter& adapter : adapters) {
    // %a prints a double exactly.
    absl::StrAppendFormat(&fingerprint, "%s:%a:%a;", adapter.content_sha256, adapter.weight,
                          adapter.text_encoder_weight);
  }
  return fingerprint;
}

}  // namespace hotlora
