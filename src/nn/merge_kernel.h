#ifndef HOTLORA_SRC_NN_MERGE_KERNEL_H_
#define HOTLORA_SRC_NN_MERGE_KERNEL_H_

#include <cstdint>

#include "src/nn/merge_tile.h"

namespace hotlora {

// Rebuilds all weights of `tasks` on the current CUDA device in one launch, on `stream` (a cudaStream_t); does not
// wait. Only in builds of the preset cuda (HOTLORA_CUDA).
//
// Inputs   tasks, products: on the device, as MergeTile::Run wants them; tiles: the sum of TilesOf over the tasks
// Errors   the text of CUDA's error, which lives as long as the process; nullptr: none
const char* LaunchMerge(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles,
                        void* stream);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_MERGE_KERNEL_H_
