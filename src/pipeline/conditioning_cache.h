#ifndef HOTLORA_SRC_PIPELINE_CONDITIONING_CACHE_H_
#define HOTLORA_SRC_PIPELINE_CONDITIONING_CACHE_H_

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include <ATen/core/Tensor.h>

#include "src/nn/adapter_set.h"
#include "src/pipeline/pipeline.h"
#include "src/pipeline/prompt_encoder.h"

namespace hotlora {

// Names everything that shapes the encoded prompts of a request: the texts, what is read in them, the vectors that
// stand in them, whether there is a negative side, and the adapters on the text encoders in their form. `weights` names
// the state of the base weights. Equal keys, equal bytes.
std::string ConditioningKey(const Prompts& prompts, bool negative, const AdapterSet& set, ApplyMode mode,
                            uint64_t weights);

// Encoded prompts of earlier requests. All of them lie in one storage that is allocated at the start, so that entries
// come and go without an allocation: a slot for each 77 tokens of a side. The least recently used ones make room.
//
// Threads  the step thread only
class ConditioningCache {
 public:
  // Widths of TextSide's tensors. A budget below one slot keeps nothing.
  ConditioningCache(uint64_t bytes, int64_t hidden_width, int64_t pooled_width, const at::TensorOptions& options);

  // A copy of what was kept under `key`, with the same bytes.
  std::optional<EncodedPrompts> Find(const std::string& key);

  // Keeps a copy, unless it is larger than the whole storage. REQUIRES: `key` is not there.
  void Keep(const std::string& key, const EncodedPrompts& prompts);

  // The storage's size.
  uint64_t bytes() const { return storage_.nbytes(); }

 private:
  struct Entry {
    std::string key;
    std::vector<int64_t> slots;  // of the positive side, then of the negative side if there is one
    bool negative;
  };

  at::Tensor Hidden(int64_t slot) const;  // [1, 77, hidden width], a view
  at::Tensor Pooled(int64_t slot) const;  // [1, pooled width], a view

  const int64_t hidden_width_, pooled_width_;
  const at::Tensor storage_;   // [slots, 77 * hidden width + pooled width]
  std::vector<int64_t> free_;  // slots
  std::list<Entry> entries_;   // the least recently used one first
  absl::flat_hash_map<std::string, std::list<Entry>::iterator> by_key_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_CONDITIONING_CACHE_H_
