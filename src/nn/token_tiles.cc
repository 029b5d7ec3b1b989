#include "src/nn/token_tiles.h"

#include <algorithm>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include "src/tensor/parallel_for.h"

namespace hotlora {
namespace {

constexpr int64_t kUnit = 16;        // tokens; tiles are multiples of it, as matrix instructions want them
constexpr int64_t kFewestUnits = 4;  // for a thread, each of which reads all weights

// What `side` says of rows with `tokens` tokens each, for the tokens [first, end).
std::vector<SideRows> SideOfTokens(SideBranch side, int64_t tokens, int64_t first, int64_t end) {
  std::vector<SideRows> here;
  for (const SideRows& rows : side) {
    const int64_t from = std::max(first, rows.first * tokens);
    const int64_t to = std::min(end, (rows.first + rows.rows) * tokens);
    if (from < to) {
      here.push_back({from - first, to - from, rows.table});
    }
  }
  return here;
}

}  // namespace

at::Tensor TokenTile::operator()(const at::Tensor& x) const {
  return !x.defined() || count_ < 0 ? x : x.view({-1, x.size(-1)}).narrow(0, first_, count_);
}

void ForTokenTiles(const at::Tensor& x, SideBranch side, absl::FunctionRef<void(const TokenTile&)> chain) {
  const int64_t tokens = x.numel() / x.size(-1), units = (tokens + kUnit - 1) / kUnit;
  const int threads = at::get_num_threads();
  if (!x.is_cpu() || threads == 1 || at::in_parallel_region() || units < kFewestUnits * threads) {
    chain(TokenTile(side));
    return;
  }
  RECORD_FUNCTION("hotlora::token_chain", {});
  ParallelFor(0, units, kFewestUnits, [&](int64_t begin, int64_t end) {
    const at::DisableRecordFunctionGuard one_call;
    const int64_t first = begin * kUnit, count = std::min(end * kUnit, tokens) - first;
    const std::vector<SideRows> side_here = SideOfTokens(side, x.size(1), first, first + count);
    chain(TokenTile(first, count, side_here));
  });
}

}  // namespace hotlora
