#include "src/nn/adapter_set.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace hotlora {

void AdapterSet::Add(WeightedAdapter adapter, const std::vector<std::string>& targets) {
  const size_t on_unet = std::count(targets.begin(), targets.end(), "unet");
  const auto weight_on = [](double weight, bool changed) { return changed && weight != 0.0 ? weight : 0.0; };  // no -0
  if (on_unet == 0) {
    adapter.blocks.clear();
  }
  for (BlockWeight& block : adapter.blocks) {
    block.weight = weight_on(block.weight, true);
  }
  adapter.weight = weight_on(adapter.weight, on_unet > 0);
  adapter.text_encoder_weight = weight_on(adapter.text_encoder_weight, targets.size() > on_unet);
  if (adapter.HasEffect()) {
    adapters.push_back(std::move(adapter));
  }
}

std::string AdapterSet::Fingerprint() const {
  std::string fingerprint;
  for (const WeightedAdapter& adapter : adapters) {
    // %a prints a double exactly.
    absl::StrAppendFormat(&fingerprint, "%s:%a:%a", adapter.content_sha256, adapter.weight,
                          adapter.text_encoder_weight);
    for (const BlockWeight& block : adapter.blocks) {
      absl::StrAppendFormat(&fingerprint, ",%s=%a", block.prefix, block.weight);
    }
    fingerprint += ';';
  }
  return fingerprint;
}

std::string AdapterSet::TextFingerprint() const {
  std::string fingerprint;
  for (const WeightedAdapter& adapter : adapters) {
    if (adapter.text_encoder_weight != 0.0) {
      absl::StrAppendFormat(&fingerprint, "%s:%a;", adapter.content_sha256, adapter.text_encoder_weight);
    }
  }
  return fingerprint;
}

}  // namespace hotlora
