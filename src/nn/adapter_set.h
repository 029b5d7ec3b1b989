#ifndef HOTLORA_SRC_NN_ADAPTER_SET_H_
#define HOTLORA_SRC_NN_ADAPTER_SET_H_

// Which adapters are in effect, as a value without tensors: what the scheduler carries from the adapter store to the
// pipeline.

#include <memory>
#include <string>
#include <vector>

namespace hotlora {

struct AdapterWeights;  // nn/lora_delta.h

struct WeightedAdapter {
  std::shared_ptr<const AdapterWeights> weights;
  std::string content_sha256;        // of the adapter's file: its identity, whatever its name
  double weight = 1.0;               // on the UNet's changes
  double text_encoder_weight = 1.0;  // on both text encoders' changes
};

// The complete adapter state of one request, in request order. Empty: the base model. Never holds an adapter whose two
// weights are both 0: weight 0 means absent.
struct AdapterSet {
  std::vector<WeightedAdapter> adapters;

  // Adds an adapter that changes `targets` (AdapterInfo::targets): its weight on what it leaves alone becomes 0, and
  // if both weights are 0 nothing is added.
  void Add(WeightedAdapter adapter, const std::vector<std::string>& targets);

  // Names every input that shapes the weights: content hashes, weights (exact), order. Equal fingerprint, equal
  // weights.
  std::string Fingerprint() const;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ADAPTER_SET_H_
