#ifndef HOTLORA_SRC_NN_ADAPTER_SCHEDULE_H_
#define HOTLORA_SRC_NN_ADAPTER_SCHEDULE_H_

// Which adapters are in effect when, while an image is made. No LibTorch here.

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"

#include "src/nn/adapter_set.h"

namespace hotlora {

// The adapter sets of a request, one after the other. Made once for a request, so that a step looks up its set and
// computes nothing. Text encoders run before the first evaluation: what a set does to them is the same in all parts.
class AdapterSchedule {
 public:
  struct Part {
    uint32_t begin = 0;       // the evaluation of the network (from 0) from which on `set` is in effect
    AdapterSet set;           // without ranges
    std::string fingerprint;  // AdapterSet::Fingerprint
  };

  // One set in all evaluations, whatever its ranges.
  AdapterSchedule(AdapterSet set = {});

  // The sets of `evaluations` evaluations of the network. An adapter whose range holds an evaluation is in the sets of
  // those with all its weights, and in the others with its weight on the text encoders. One whose range holds none is
  // in no set. REQUIRES: evaluations > 0.
  AdapterSchedule(const AdapterSet& ranged, uint32_t evaluations);

  // What is in effect in that evaluation. The last part has no end.
  const Part& at(uint32_t evaluation) const;

  // The evaluation at which the set changes next, after that one; kNever if it does not.
  uint32_t NextChange(uint32_t evaluation) const;
  static constexpr uint32_t kNever = std::numeric_limits<uint32_t>::max();

  // Whether that evaluation is the first of another set than the one before it had.
  bool ChangesAt(uint32_t evaluation) const { return evaluation > 0 && at(evaluation).begin == evaluation; }

  // Whether one set is in effect all the time.
  bool constant() const { return parts_.size() == 1; }

  // Names all sets and where they begin; that of a constant schedule is its set's.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  std::vector<Part> parts_;  // at least one; neighbours differ
  std::string fingerprint_;
};

// Whether `fit` is true of what is in effect in each evaluation that two images make at the same time from now on, as
// if neither ever ended. Their next evaluations are `next_a` and `next_b`.
bool FitFromHere(const AdapterSchedule& a, uint32_t next_a, const AdapterSchedule& b, uint32_t next_b,
                 absl::FunctionRef<bool(const AdapterSchedule::Part&, const AdapterSchedule::Part&)> fit);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_ADAPTER_SCHEDULE_H_
