#ifndef HOTLORA_TESTS_FAKES_SERIAL_MERGE_H_
#define HOTLORA_TESTS_FAKES_SERIAL_MERGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "src/nn/merge_tile.h"

namespace hotlora {

// A block whose threads take turns: what each leaves in ThreadState and in what they share is there when all have run.
struct SerialBlock {
  template <typename Visit>
  void ForThreads(Visit visit) {
    for (int thread = 0; thread < MergeTile::kThreads; ++thread) {
      visit(thread, states[static_cast<size_t>(thread)]);
    }
  }
  std::vector<MergeTile::ThreadState> states = std::vector<MergeTile::ThreadState>(MergeTile::kThreads);
};

// The launch of the merge as a loop: all tiles on the calling thread.
inline void MergeSerially(const MergeTask* tasks, int task_count, const MergeProduct* products, int64_t tiles) {
  for (int64_t tile = 0; tile < tiles; ++tile) {
    MergeTile::Shared shared;
    SerialBlock block;
    MergeTile::Run(tasks, task_count, products, tile, shared, block);
  }
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FAKES_SERIAL_MERGE_H_
