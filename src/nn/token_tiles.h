#ifndef HOTLORA_SRC_NN_TOKEN_TILES_H_
#define HOTLORA_SRC_NN_TOKEN_TILES_H_

// Chains of operators that look at one token at a time (products, layer norms, gates), a range of the tokens on each
// thread from the first operator to the last. The threads wake and wait once a chain, not once an operator, and what
// one operator leaves is in the cache of the thread that goes on with it.

#include <cstdint>

#include "absl/functional/function_ref.h"
#include <ATen/core/Tensor.h>

#include "src/nn/side_branch.h"

namespace hotlora {

// The tokens [first, first + count) of tensors [rows, tokens, any width], counted over all rows.
class TokenTile {
 public:
  explicit TokenTile(SideBranch side) : side_(side) {}  // all tokens
  TokenTile(int64_t first, int64_t count, SideBranch side) : first_(first), count_(count), side_(side) {}

  // The tile's part of x, which is contiguous: x itself if the tile is all tokens, else a view [count, width].
  // Undefined stays undefined.
  at::Tensor operator()(const at::Tensor& x) const;

  // The side branch of a module that is given the tile's part of its input.
  SideBranch side() const { return side_; }

 private:
  int64_t first_ = 0, count_ = -1;
  SideBranch side_;
};

// Calls `chain` for tiles that make up all tokens of x [rows, tokens, width], whose rows have the side branch `side`.
// On the CPU, if there are tokens enough for all threads, there is one tile a thread, and a profiler sees one call,
// "hotlora::token_chain". Otherwise there is one tile of all tokens, and each operator uses all threads.
//
// Threads  `chain` is called on several at the same time, under the caller's thread-local state
// Errors   rethrows what `chain` throws, once all calls have ended
void ForTokenTiles(const at::Tensor& x, SideBranch side, absl::FunctionRef<void(const TokenTile&)> chain);

}  // namespace hotlora

#endif  // HOTLORA_SRC_NN_TOKEN_TILES_H_
