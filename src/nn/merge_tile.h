#ifndef HOTLORA_SRC_NN_MERGE_TILE_H_
#define HOTLORA_SRC_NN_MERGE_TILE_H_

// The work of one thread block of src/cuda/merge_kernel.cu: 64 x 64 values of one weight,
//
//   live = round(clean + sum_p factor_p up_p down_p)
//
// summed in float32. The weights of a whole model are one launch: their tiles are numbered one weight after the other.
// Written so that the CPU can run it too, where a "block" is a loop over its threads; the tests do.

#include <cstdint>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#ifdef __CUDACC__
#define HOTLORA_HOST_DEVICE __host__ __device__
#define HOTLORA_ROLLED _Pragma("unroll 1")
#define HOTLORA_UNROLLED _Pragma("unroll")
#else
#define HOTLORA_HOST_DEVICE
#define HOTLORA_ROLLED
#define HOTLORA_UNROLLED
#endif

namespace hotlora {

enum class ValueType : int32_t { kFloat, kHalf, kBfloat16 };

// up: [rows, rank], down: [rank, columns] of the weight's task, both contiguous, on the device.
struct MergeProduct {
  const void* up;
  const void* down;
  ValueType up_type, down_type;
  int32_t rank;
  float factor;
};

// One weight, [rows, columns]; columns = in * window, the window being kh * kw, or 1 in linear layers.
struct MergeTask {
  void* live;
  const void* clean;
  ValueType live_type, clean_type;
  int32_t rows, columns;
  // How the columns lie: as in `down`, inputs outermost, with 1; innermost (channels_last) with the window's size.
  int32_t live_window, clean_window;
  int32_t first_product, products;  // its products, in the order of their sum
  int64_t first_tile;
};

// `Block` is the way to a block's threads: ForThreads(f) calls f(index, ThreadState&) for each of kThreads and returns
// when all are done; each thread has a ThreadState of its own, which stays from one call to the next.
class MergeTile {
 public:
  static constexpr int kRows = 64, kColumns = 64, kDepth = 16, kThreads = 256;

  // What a block shares: a slice of the product's factors.
  struct Shared {
    float up[kDepth][kRows + 1];  // so that its columns are in different banks
    float down[kDepth][kColumns];
  };

  // A thread's 4 x 4 values.
  struct ThreadState {
    float sum[4][4];
  };

  HOTLORA_HOST_DEVICE static int64_t TilesAcross(const MergeTask& task) {
    return (task.columns + kColumns - 1) / kColumns;
  }
  HOTLORA_HOST_DEVICE static int64_t TilesOf(const MergeTask& task) {
    return (task.rows + kRows - 1) / kRows * TilesAcross(task);
  }

  // `tasks` in the order of their first_tile, which begin at 0 without gaps.
  template <typename Block>
  HOTLORA_HOST_DEVICE static void Run(const MergeTask* tasks, int task_count, const MergeProduct* products,
                                      int64_t tile, Shared& shared, Block& block) {
    const MergeTask& task = tasks[Find(tasks, task_count, tile)];
    const int64_t within = tile - task.first_tile;
    const int first_row = static_cast<int>(within / TilesAcross(task)) * kRows;
    const int first_column = static_cast<int>(within % TilesAcross(task)) * kColumns;

    block.ForThreads([&](int thread, ThreadState& mine) {
      ForValues(task, first_row, first_column, thread, [&](int r, int c, int64_t row, int column) {
        mine.sum[r][c] = Load(task.clean, task.clean_type, IndexOf(task, task.clean_window, row, column));
      });
    });
    for (int p = 0; p < task.products; ++p) {
      const MergeProduct& product = products[task.first_product + p];
      for (int begin = 0; begin < product.rank; begin += kDepth) {
        block.ForThreads(
            [&](int thread, ThreadState&) { Fill(task, product, first_row, first_column, begin, thread, shared); });
        block.ForThreads([&](int thread, ThreadState& mine) {
          HOTLORA_UNROLLED
          for (int depth = 0; depth < kDepth; ++depth) {
            for (int r = 0; r < 4; ++r) {
              for (int c = 0; c < 4; ++c) {
                mine.sum[r][c] += shared.up[depth][Row(thread) + r] * shared.down[depth][Column(thread) + c];
              }
            }
          }
        });
      }
    }
    block.ForThreads([&](int thread, ThreadState& mine) {
      ForValues(task, first_row, first_column, thread, [&](int r, int c, int64_t row, int column) {
        Store(task.live, task.live_type, IndexOf(task, task.live_window, row, column), mine.sum[r][c]);
      });
    });
  }

 private:
  // The first of the thread's rows and columns in the tile. A warp reads whole lines.
  HOTLORA_HOST_DEVICE static int Row(int thread) { return thread / 16 * 4; }
  HOTLORA_HOST_DEVICE static int Column(int thread) { return thread % 16 * 4; }

  // The last task whose first_tile is not after `tile`.
  HOTLORA_HOST_DEVICE static int Find(const MergeTask* tasks, int count, int64_t tile) {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = low + (high - low) / 2;
      if (tasks[middle].first_tile <= tile) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }

  HOTLORA_HOST_DEVICE static int64_t IndexOf(const MergeTask& task, int window, int64_t row, int column) {
    if (window == 1) {
      return row * task.columns + column;
    }
    const int inputs = task.columns / window;
    return row * task.columns + static_cast<int64_t>(column % window) * inputs + column / window;
  }

  template <typename Visit>
  HOTLORA_HOST_DEVICE static void ForValues(const MergeTask& task, int first_row, int first_column, int thread,
                                            Visit visit) {
    for (int r = 0; r < 4; ++r) {
      for (int c = 0; c < 4; ++c) {
        const int row = first_row + Row(thread) + r, column = first_column + Column(thread) + c;
        if (row < task.rows && column < task.columns) {
          visit(r, c, row, column);
        }
      }
    }
  }

  // Copies kDepth ranks of both factors into `shared`, zeros beyond their ends; the factor goes onto `up`. The loops
  // are rolled: unrolled they spill registers, and load no earlier, since each load waits inside the choice of its
  // type.
  HOTLORA_HOST_DEVICE static void Fill(const MergeTask& task, const MergeProduct& product, int first_row,
                                       int first_column, int begin, int thread, Shared& shared) {
    HOTLORA_ROLLED
    for (int i = thread; i < kDepth * kRows; i += kThreads) {
      const int depth = i % kDepth, row = i / kDepth;  // up's ranks lie side by side
      const bool inside = begin + depth < product.rank && first_row + row < task.rows;
      const int64_t index = static_cast<int64_t>(first_row + row) * product.rank + begin + depth;
      shared.up[depth][row] = inside ? product.factor * Load(product.up, product.up_type, index) : 0.0F;
    }
    HOTLORA_ROLLED
    for (int i = thread; i < kDepth * kColumns; i += kThreads) {
      const int depth = i / kColumns, column = i % kColumns;
      const bool inside = begin + depth < product.rank && first_column + column < task.columns;
      const int64_t index = static_cast<int64_t>(begin + depth) * task.columns + first_column + column;
      shared.down[depth][column] = inside ? Load(product.down, product.down_type, index) : 0.0F;
    }
  }

  HOTLORA_HOST_DEVICE static float Load(const void* values, ValueType type, int64_t index) {
    switch (type) {
      case ValueType::kHalf:
        return static_cast<float>(static_cast<const c10::Half*>(values)[index]);
      case ValueType::kBfloat16:
        return static_cast<float>(static_cast<const c10::BFloat16*>(values)[index]);
      default:
        return static_cast<const float*>(values)[index];
    }
  }

  HOTLORA_HOST_DEVICE static void Store(void* values, ValueType type, int64_t index, float value) {
    switch (type) {
      case ValueType::kHalf:
        static_cast<c10::Half*>(values)[index] = c10::Half(value);
        break;
      case ValueType::kBfloat16:
        static_cast<c10::BFloat16*>(values)[index] = c10::BFloat16(value);
        break;
      default:
        static_cast<float*>(values)[index] = value;
    }
  }
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_MERGE_TILE_H_
