#ifndef HOTLORA_SRC_REQUEST_UNAVAILABLE_H_
#define HOTLORA_SRC_REQUEST_UNAVAILABLE_H_

// The errors of a server that accepts no requests for now: Unavailable, with the delay after which a caller may try
// again, here or at another server.

#include "absl/status/status.h"

namespace hotlora {

absl::Status StartingError();     // STARTING: the engine has not warmed up
absl::Status DrainingError();     // DRAINING: the server is about to stop
absl::Status BaseDamagedError();  // BASE_DAMAGED: the base weights in memory are damaged, and could not be rebuilt
absl::Status WorkStuckError();    // WORK_STUCK: work on the device takes far longer than usual

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_UNAVAILABLE_H_
