#include "src/nn/side_branch.h"

#include <algorithm>
#include <variant>

#include <ATen/ATen.h>

namespace hotlora {
namespace {

bool IsOverOutputs(const at::Tensor& magnitude) { return magnitude.size(1) == 1; }

// Whether the factors can be multiplied as they lie. Looks at one tensor if it can: a swap asks this of every
// module, and each tensor is a miss of the cache.
bool ServeAsTheyAre(const ModuleDelta& delta, const LowRank& factors, c10::Device device) {
  return factors.down.device() == device && !factors.mid.defined() && !delta.magnitude.defined();
}

// Whether b lies in memory right behind a, so that one product computes both.
bool Follows(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.is_contiguous() && b.is_contiguous() && a.is_alias_of(b) &&
         static_cast<const char*>(a.const_data_ptr()) + a.nbytes() == b.const_data_ptr();
}

// One change of one of the modules that a stack consists of.
struct Part {
  const SideChange* change;
  int64_t index;  // of the module in the stack
};

// y += the parts' branches; their downs lie one behind the other.
void AddParts(absl::Span<const Part> parts, const at::Tensor& x, const at::Tensor& bias, int64_t out, at::Tensor& y) {
  int64_t ranks = 0;
  for (const Part& part : parts) {
    ranks += part.change->factors->down.size(0);
  }
  const at::Tensor& first = parts.front().change->factors->down;
  const at::Tensor down = first.as_strided({ranks, first.size(1)}, {first.size(1), 1});
  const at::Tensor low = x.mm(down.to(at::kFloat).t());  // [n, ranks]
  int64_t column = 0;
  for (const Part& part : parts) {
    const int64_t rank = part.change->factors->down.size(0), begin = part.index * out;
    AddSideProduct(*part.change, low.narrow(1, column, rank), bias.defined() ? bias.narrow(0, begin, out) : bias,
                   y.narrow(1, begin, out));
    column += rank;
  }
}

}  // namespace

bool HasSideForm(absl::Span<const WeightedDelta> deltas) {
  return std::all_of(deltas.begin(), deltas.end(), [&](const WeightedDelta& weighted) {
    const at::Tensor& magnitude = weighted.delta->magnitude;
    return std::holds_alternative<LowRank>(weighted.delta->change) &&
           (!magnitude.defined() || (deltas.size() == 1 && IsOverOutputs(magnitude)));
  });
}

// An adapter's own factors are used if they can be multiplied as they are, so that a swap copies nothing. Otherwise the
// table makes factors of its own, once for each swap:
//
//   Tucker   up mid down with a core of 1x1 is up' down, up' = up mid. Larger cores stay; the convolution applies them.
//   DoRA     V = W + s B A, r = m / |V| for each output. With weight w the output becomes
//              kScaledChange   r (W x + w s B A x), V with w s in place of s:   kept = r,             up' = r B
//              kInterpolated   (1 - w) W x + w r (W x + s B A x):               kept = 1 - w + w r,   up' = w r B
//            `kept` scales the share of W x, up' is the up that is used, and `factor` is what is left: w s, or s.
SideChange SideTable::MakeChange(const WeightedDelta& weighted, const at::Tensor& clean, DoraWeighting dora) {
  const ModuleDelta& delta = *weighted.delta;
  SideChange change{&std::get<LowRank>(delta.change), weighted.weight * delta.scale, {}};
  if (ServeAsTheyAre(delta, *change.factors, clean.device())) {
    return change;
  }
  LowRank& factors = made_.emplace_back(*change.factors);
  change.factors = &factors;
  for (at::Tensor* tensor : {&factors.down, &factors.up, &factors.mid}) {
    if (tensor->defined() && tensor->device() != clean.device()) {
      *tensor = tensor->to(clean.device());
    }
  }
  if (at::Tensor& mid = factors.mid; mid.defined() && mid.size(2) * mid.size(3) == 1) {
    factors.up = factors.up.to(at::kFloat).mm(mid.to(at::kFloat).flatten(1));
    mid = at::Tensor();
  }
  if (!delta.magnitude.defined()) {
    return change;
  }
  const bool interpolated = dora == DoraWeighting::kInterpolated;
  change.factor = interpolated ? delta.scale : change.factor;
  const at::Tensor ratio = MagnitudeRatio(clean, delta, change.factor).flatten();  // [out]
  const at::Tensor share = interpolated ? ratio * weighted.weight : ratio;
  change.kept = interpolated ? share + (1.0 - weighted.weight) : ratio;
  factors.up = factors.up.to(at::kFloat) * share.unsqueeze(1);
  return change;
}

void SideTable::Add(size_t module, absl::Span<const WeightedDelta> deltas, const at::Tensor& clean,
                    DoraWeighting dora) {
  starts_.resize(module + 1, static_cast<uint32_t>(changes_.size()));
  for (const WeightedDelta& delta : deltas) {
    changes_.push_back(MakeChange(delta, clean, dora));
  }
  starts_.push_back(static_cast<uint32_t>(changes_.size()));
}

// An adapter lays the downs of a stack (q, k, v) one behind the other (block_layout.h), so that one product of x gives
// the low outputs of all of them. To find these neighbours, the changes are ordered by their number in their module
// first and by module second: the nth changes of all modules are those of one adapter, unless an adapter of the set
// leaves out a module of the stack. A run of neighbours in this order (Follows) is one product with x.
//
// The length of the runs matters for speed alone. A change whose neighbour is missing, or that has factors of its own
// (MakeChange), is a run of one. And the changes of one module are added in request order, whatever the runs are.
void AddSideLinear(SideBranch side, size_t first_module, int64_t modules, const at::Tensor& x, const at::Tensor& bias,
                   at::Tensor& y) {
  std::vector<Part> parts;
  for (const SideRows& rows : side) {
    parts.clear();
    for (size_t nth = 0, found = 1; found > 0; ++nth) {
      found = 0;
      for (int64_t index = 0; index < modules; ++index) {
        const absl::Span<const SideChange> changes = rows.table->Of(first_module + static_cast<size_t>(index));
        if (nth < changes.size()) {
          parts.push_back({&changes[nth], index});
          ++found;
        }
      }
    }
    if (parts.empty()) {
      continue;
    }
    const at::Tensor flat_x =
        x.narrow(0, rows.first, rows.rows).reshape({-1, x.size(-1)}).to(at::kFloat);  // [n, in], a view
    at::Tensor flat_y = y.narrow(0, rows.first, rows.rows).view({-1, y.size(-1)});    // [n, modules * out]
    for (size_t begin = 0, end; begin < parts.size(); begin = end) {
      end = begin + 1;
      while (end < parts.size() && Follows(parts[end - 1].change->factors->down, parts[end].change->factors->down)) {
        ++end;
      }
      AddParts(absl::MakeConstSpan(parts).subspan(begin, end - begin), flat_x, bias, y.size(-1) / modules, flat_y);
    }
  }
}

void AddSideProduct(const SideChange& change, const at::Tensor& low, const at::Tensor& bias, at::Tensor y) {
  const at::Tensor up = change.factors->up.to(at::kFloat).t();  // [rank, out]
  if (y.scalar_type() == at::kFloat && !change.kept.defined()) {
    y.addmm_(low, up, /*beta=*/1, /*alpha=*/change.factor);
    return;
  }
  at::Tensor sum = y.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (change.kept.defined()) {
    sum = bias.defined() ? sum.sub_(bias).mul_(change.kept).add_(bias) : sum.mul_(change.kept);
  }
  y.copy_(sum.addmm_(low, up, /*beta=*/1, /*alpha=*/change.factor));
}

}  // namespace hotlora
