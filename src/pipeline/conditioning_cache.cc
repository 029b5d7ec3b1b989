#include "src/pipeline/conditioning_cache.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <ATen/ATen.h>

#include "src/base/sha256.h"
#include "src/sdxl/clip_tokenizer.h"

namespace hotlora {
namespace {

constexpr int64_t kTokens = ClipTokenizer::kPaddedLength;

// The parts of a key, each with its length, so that no two lists of parts are alike.
class KeyHash {
 public:
  void Add(const std::string& part) { Add(part.data(), part.size()); }
  void Add(const std::vector<float>& values) { Add(values.data(), values.size() * sizeof(float)); }
  std::string Take() { return hash_.HexDigest(); }

 private:
  void Add(const void* data, size_t size) {
    const std::string length = absl::StrCat(size, ":");
    hash_.Update(length.data(), length.size());
    hash_.Update(data, size);
  }

  Sha256 hash_;
};

int64_t Slots(uint64_t bytes, int64_t values, const at::TensorOptions& options) {
  return static_cast<int64_t>(bytes / (values * options.dtype().itemsize()));
}

}  // namespace

std::string ConditioningKey(const Prompts& prompts, bool negative, const AdapterSet& set, ApplyMode mode,
                            uint64_t weights) {
  KeyHash key;
  key.Add(absl::StrCat(weights, ";", prompts.clip_skip, ";", prompts.weighted, ";", prompts.long_prompts, ";", negative,
                       ";", prompts.negative_prompt.has_value()));
  key.Add(prompts.prompt);
  key.Add(prompts.prompt_2);
  if (negative && prompts.negative_prompt.has_value()) {
    key.Add(*prompts.negative_prompt);
    key.Add(prompts.negative_prompt_2);
  }
  const std::string adapters = set.TextFingerprint();
  key.Add(adapters.empty() || mode == ApplyMode::kMerged ? adapters : "side;" + adapters);
  for (const PromptEmbedding& embedding : prompts.embeddings) {
    key.Add(embedding.token);
    key.Add(absl::StrCat(embedding.vectors->count));
    key.Add(embedding.vectors->first);
    key.Add(embedding.vectors->second);
  }
  return key.Take();
}

ConditioningCache::ConditioningCache(uint64_t bytes, int64_t hidden_width, int64_t pooled_width,
                                     const at::TensorOptions& options)
    : hidden_width_(hidden_width),
      pooled_width_(pooled_width),
      storage_(at::empty(
          {Slots(bytes, kTokens * hidden_width + pooled_width, options), kTokens * hidden_width + pooled_width},
          options)),
      free_(storage_.size(0)) {
  std::iota(free_.begin(), free_.end(), 0);
}

at::Tensor ConditioningCache::Hidden(int64_t slot) const {
  return storage_[slot].narrow(0, 0, kTokens * hidden_width_).view({1, kTokens, hidden_width_});
}

at::Tensor ConditioningCache::Pooled(int64_t slot) const {
  return storage_[slot].narrow(0, kTokens * hidden_width_, pooled_width_).unsqueeze(0);
}

std::optional<EncodedPrompts> ConditioningCache::Find(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    return std::nullopt;
  }
  entries_.splice(entries_.end(), entries_, found->second);
  const Entry& entry = *found->second;
  const size_t chunks = entry.slots.size() / (entry.negative ? 2 : 1);
  const auto side = [&](size_t first) -> TextSide {
    std::vector<at::Tensor> hidden;
    for (size_t i = first; i < first + chunks; ++i) {
      hidden.push_back(Hidden(entry.slots[i]));
    }
    return {at::cat(hidden, 1), Pooled(entry.slots[first]).clone()};
  };
  return EncodedPrompts{side(0), entry.negative ? side(chunks) : TextSide()};
}

void ConditioningCache::Keep(const std::string& key, const EncodedPrompts& prompts) {
  const bool negative = prompts.negative.hidden.defined();
  const int64_t chunks = prompts.positive.hidden.size(1) / kTokens;
  const size_t needed = static_cast<size_t>(chunks) * (negative ? 2 : 1);
  if (needed > static_cast<size_t>(storage_.size(0))) {
    return;
  }
  while (free_.size() < needed) {
    Entry& oldest = entries_.front();
    free_.insert(free_.end(), oldest.slots.begin(), oldest.slots.end());
    by_key_.erase(oldest.key);
    entries_.pop_front();
  }
  Entry entry{key, {free_.end() - static_cast<std::ptrdiff_t>(needed), free_.end()}, negative};
  free_.resize(free_.size() - needed);
  auto slot = entry.slots.begin();
  for (const TextSide* side : {&prompts.positive, &prompts.negative}) {
    for (int64_t chunk = 0; side->hidden.defined() && chunk < chunks; ++chunk, ++slot) {
      Hidden(*slot).copy_(side->hidden.narrow(1, chunk * kTokens, kTokens));
      Pooled(*slot).copy_(side->pooled);
    }
  }
  by_key_[key] = entries_.insert(entries_.end(), std::move(entry));
}

}  // namespace hotlora
