#include "src/pipeline/base_guard.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <ATen/ATen.h>

#include "src/base/error_details.h"
#include "src/base/logging.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"
#include "src/nn/lora_delta.h"
#include "src/nn/packed_weight.h"

namespace hotlora {
namespace {

// What `adapters` change of `module`, in order.
std::vector<WeightedDelta> DeltasOf(const AdapterSet& adapters, size_t module) {
  std::vector<WeightedDelta> deltas;
  for (const WeightedAdapter& adapter : adapters.adapters) {
    for (const ModuleDelta& delta : adapter.weights->deltas) {
      if (delta.module == module) {
        deltas.push_back({&delta, adapter.weight});
      }
    }
  }
  return deltas;
}

ComponentWeights& ComponentOf(Checkpoint& checkpoint, Component component) {
  switch (component) {
    case Component::kTextEncoder:
      return checkpoint.text_encoder;
    case Component::kTextEncoder2:
      return checkpoint.text_encoder_2;
    default:
      return checkpoint.unet;
  }
}

}  // namespace

BaseGuard::BaseGuard(const SdxlModel& model, AppliedAdapters& applied, BaseSource source, DoraWeighting dora)
    : model_(model), applied_(applied), source_(std::move(source)), dora_(dora), sha256_(model.sha256()) {}

absl::Status BaseGuard::MergeBaseAdapters() {
  if (source_.adapters == nullptr) {
    return absl::OkStatus();
  }
  ABSL_ASSIGN_OR_RETURN(const AdapterSet adapters, source_.adapters());
  std::string lines = absl::StrCat("checkpoint\n", model_.sha256(), "\n");
  for (const WeightedAdapter& adapter : adapters.adapters) {
    absl::StrAppendFormat(&lines, "%s %.17g\n", adapter.content_sha256, adapter.weight);
  }
  size_t changed = 0;
  for (size_t module = 0; module < model_.adaptable_weights().size(); ++module) {
    const std::vector<WeightedDelta> deltas = DeltasOf(adapters, module);
    if (!deltas.empty()) {
      const AdaptableWeight& weight = model_.adaptable_weights()[module];
      at::Tensor merged = at::empty_like(weight.clean);
      MergeWeight(merged, weight.clean, deltas, dora_);
      at::Tensor(weight.clean).copy_(merged);
      CopyWeight(merged, weight.live);
      ++changed;
    }
  }
  Sha256 hash;
  hash.Update(lines.data(), lines.size());
  sha256_ = hash.HexDigest();
  LogInfo(adapters.adapters.size(), " base adapters are merged into ", changed, " modules; the model is sha256 ",
          sha256_);
  return absl::OkStatus();
}

void BaseGuard::RecordDigests() {
  for (const AdaptableWeight& weight : model_.adaptable_weights()) {
    digests_.push_back(DigestOf(weight.clean));
  }
}

BaseReport BaseGuard::VerifyNext() {
  const size_t module = next_;
  next_ = (next_ + 1) % digests_.size();
  repaired_in_this_round_ = repaired_in_this_round_ && module != 0;
  BaseReport check;
  check.modules_checked = 1;
  if (!IsIntact(module)) {
    check.mismatches = 1;
    LogError("the base weight of ", model_.modules().modules[module].path, " is not what it was at start");
    if (!std::exchange(repaired_in_this_round_, true)) {
      check.repaired = Repair();
    }
    check.intact = IsIntact(module);
  }
  return check;
}

// The clean weight has its bytes, and if no adapter is in effect, the live one equals it.
bool BaseGuard::IsIntact(size_t module) const {
  const AdaptableWeight& weight = model_.adaptable_weights()[module];
  return DigestOf(weight.clean) == digests_[module] &&
         (!applied_.IsClean(module) || IsCopyOf(weight.live, weight.clean));
}

// All at once, because a checkpoint is read as a whole.
uint32_t BaseGuard::Repair() {
  uint32_t repaired = 0;
  std::optional<Checkpoint> checkpoint;
  AdapterSet adapters;
  for (size_t module = 0; module < digests_.size(); ++module) {
    if (IsIntact(module)) {
      continue;
    }
    const AdaptableWeight& weight = model_.adaptable_weights()[module];
    if (DigestOf(weight.clean) != digests_[module]) {
      if (!checkpoint.has_value()) {
        absl::StatusOr<Checkpoint> read = ReadCheckpoint(source_.checkpoint);
        absl::StatusOr<AdapterSet> base = source_.adapters == nullptr ? AdapterSet() : source_.adapters();
        if (!read.ok() || !base.ok()) {
          LogError("base weights cannot be restored: ", (read.ok() ? base.status() : read.status()).message());
          return repaired;
        }
        checkpoint = *std::move(read);
        adapters = *std::move(base);
      }
      const at::Tensor remade = Remake(module, *checkpoint, adapters);
      if (DigestOf(remade) != digests_[module]) {
        LogError("the base weight of ", model_.modules().modules[module].path,
                 " cannot be restored: the model files have changed since the start");
        continue;
      }
      at::Tensor(weight.clean).copy_(remade);
    }
    applied_.Forget(module);
    ++repaired;
  }
  LogWarning(repaired, " modules' base weights were restored from the checkpoint");
  return repaired;
}

at::Tensor BaseGuard::Remake(size_t module, Checkpoint& checkpoint, const AdapterSet& adapters) const {
  const AdaptableModule& described = model_.modules().modules[module];
  const at::Tensor& clean = model_.adaptable_weights()[module].clean;
  const at::Tensor stored = ComponentOf(checkpoint, described.component)
                                .Take(described.path + (described.is_bias ? ".bias" : ".weight"), clean.sizes())
                                .to(clean.device());
  const std::vector<WeightedDelta> deltas = DeltasOf(adapters, module);
  if (deltas.empty()) {
    return stored;
  }
  at::Tensor merged = at::empty_like(clean);
  MergeWeight(merged, stored, deltas, dora_);
  return merged;
}

}  // namespace hotlora
