#ifndef HOTLORA_SRC_PIPELINE_BASE_GUARD_H_
#define HOTLORA_SRC_PIPELINE_BASE_GUARD_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "src/nn/adapter_set.h"
#include "src/nn/weight_merge.h"
#include "src/pipeline/applied_adapters.h"
#include "src/pipeline/pipeline.h"
#include "src/sdxl/sdxl_model.h"
#include "src/tensor/tensor_digest.h"
#include "src/weights/checkpoint.h"

namespace hotlora {

// Where the clean weights come from, at start and when one must be rebuilt.
struct BaseSource {
  CheckpointSource checkpoint;
  // The base adapters with their weights; empty: there are none. Asked at start and for each repair, so that nothing is
  // held in between.
  std::function<absl::StatusOr<AdapterSet>()> adapters;
};

// Sees to it that the base weights are what they were at start: merges the base adapters into them once, remembers
// their digests (tensor_digest.h), compares a module at a time where it lies, and rebuilds a module that differs from
// the checkpoint.
//
// Threads  the step thread only, like everything that writes weights
// Memory   nothing but the digests; a repair reads the whole checkpoint into host memory for a moment
// Errors   functions that say so throw c10::Error
class BaseGuard {
 public:
  // All arguments outlive this object.
  BaseGuard(const SdxlModel& model, AppliedAdapters& applied, BaseSource source, DoraWeighting dora);

  // At start, before anything is applied. The base adapters change the weights for good, the text encoders' too.
  // Returns what the source of the adapters returns; throws c10::Error.
  absl::Status MergeBaseAdapters();
  void RecordDigests();

  // Names checkpoint and base adapters: SHA-256 over lines "checkpoint", the checkpoint's sha256, and for each base
  // adapter its content hash, a space and its weight; the checkpoint's own if there are none.
  const std::string& sha256() const { return sha256_; }

  // See Pipeline::VerifyNextModule. Throws.
  BaseReport VerifyNext();

 private:
  bool IsIntact(size_t module) const;
  uint32_t Repair();  // the number of repaired modules
  at::Tensor Remake(size_t module, Checkpoint& checkpoint, const AdapterSet& adapters) const;

  const SdxlModel& model_;
  AppliedAdapters& applied_;
  const BaseSource source_;
  const DoraWeighting dora_;
  std::string sha256_;
  std::vector<TensorDigest> digests_;  // of each adaptable module's clean weight
  size_t next_ = 0;
  bool repaired_in_this_round_ = false;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_PIPELINE_BASE_GUARD_H_
