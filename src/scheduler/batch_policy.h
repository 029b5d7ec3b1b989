#ifndef HOTLORA_SRC_SCHEDULER_BATCH_POLICY_H_
#define HOTLORA_SRC_SCHEDULER_BATCH_POLICY_H_

// Which request's image gets the next free row of the batch? ChooseRow is pure: no clock, no threads.

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "absl/types/span.h"

#include "src/request/model_info.h"

namespace hotlora {

// How requests share denoising steps.
struct BatchOptions {
  uint32_t max_batch = 4;                  // rows per step
  ApplyPolicy apply = ApplyPolicy::kAuto;  // --apply
  // How long requests may be passed by later ones that fit beside what runs, in size and adapters.
  absl::Duration longest_overtaking = absl::Seconds(2);
};

// A request with an image that has no row yet, or none of its second pass.
struct RowCandidate {
  int32_t priority = 0;
  uint32_t rows = 0;      // how many of its images run now
  bool fits = true;       // whether its image may run beside what runs now (size, adapters)
  absl::Duration waited;  // since its admission; of a second pass, since the image is ready for it
};

// The index of the candidate whose image is next; nullopt if none may enter. `candidates` are in the order of the
// queue: by priority, then by arrival.
//   - A higher priority comes first. A lower one never passes it, even if the higher one does not fit.
//   - Within one priority the request with the fewest rows comes first, so one that wants many images leaves rows to
//     others; of these the earliest.
//   - Requests that fit may pass an earlier one that does not, until it has waited `longest_overtaking`. Then no
//     request behind it enters, what runs ends, and it is its turn: no request starves.
std::optional<size_t> ChooseRow(absl::Span<const RowCandidate> candidates, absl::Duration longest_overtaking);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SCHEDULER_BATCH_POLICY_H_
