#ifndef HOTLORA_SRC_NN_ADAPTER_SET_H_
#define HOTLORA_SRC_NN_ADAPTER_SET_H_

// Which adapters are in effect, as a value without tensors: what the scheduler carries from the adapter store to the
// pipeline.

#include <memory>
#include <string>
#include <vector>

#include "src/request/block_weights.h"
#include "src/request/evaluation_range.h"

namespace hotlora {

struct AdapterWeights;  // nn/lora_delta.h

struct WeightedAdapter {
  std::shared_ptr<const AdapterWeights> weights;
  std::string content_sha256;        // of the adapter's file: its identity, whatever its name
  double weight = 1.0;               // on the UNet's changes
  double text_encoder_weight = 1.0;  // on both text encoders' changes
  EvaluationRange range;             // where it acts on the UNet: read by AdapterSchedule alone
  std::vector<BlockWeight> blocks;   // of the UNet, in place of weight; sorted by prefix, each once

  // Whether a weight is left that is not 0.
  bool HasEffect() const { return weight != 0.0 || text_encoder_weight != 0.0 || !blocks.empty(); }
};

// The complete adapter state of one request, or of some of its evaluations, in request order. Empty: the base model.
// Never holds an adapter without effect: weight 0 means absent.
struct AdapterSet {
  std::vector<WeightedAdapter> adapters;

  // Adds an adapter that changes `targets` (AdapterInfo::targets): its weights on what it leaves alone become 0, and
  // if it has no effect then, nothing is added.
  void Add(WeightedAdapter adapter, const std::vector<std::string>& targets);

  // Names every input that shapes the weights: content hashes, weights (exact), blocks, order. Equal fingerprint, equal
  // weights. Ranges have no part in it.
  std::string Fingerprint() const;
  // The same of what shapes the text encoders' weights.
  std::string TextFingerprint() const;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ADAPTER_SET_H_
