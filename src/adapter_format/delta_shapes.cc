// The shapes that a module's tensors may have: DeltaReader's second half.

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

#include "src/adapter_format/delta_reader.h"
#include "src/base/printable.h"

namespace hotlora {

std::vector<int64_t> DeltaReader::Padded(std::vector<int64_t> shape) {
  shape.resize(4, 1);
  return shape;
}

bool DeltaReader::Mismatched(const AdaptableModule& module, const StoredTensor& tensor, const std::string& needed) {
  faults_.mismatched.AddPrintable(absl::StrCat(PrintableName(tensor.name), " has shape ", ShapeText(tensor.shape),
                                               ", module \"", module.path, "\" needs ", needed));
  return false;
}

// Checks dimensions, then ranks against each other, then everything against the module.
bool DeltaReader::CheckShapes(const AdaptableModule& module, ParsedDelta& delta) {
  const std::vector<int64_t> weight = Padded(module.shape);
  const WeightShape shape{weight[0], weight[1], weight[2], weight[3]};
  if (delta.form == DeltaForm::kRotation) {
    return CheckRotation(module, delta, shape);
  }
  if (module.shape.size() == 1) {
    return Expect(module, Tensor(*delta.first.whole), weight);
  }
  if (!CheckRanks(delta.first) || !CheckRanks(delta.second)) {
    return false;
  }
  delta.rank = delta.second.rank > 0 ? delta.second.rank : delta.first.rank;
  if (!CheckMagnitude(module, shape, delta)) {
    return false;
  }
  switch (delta.form) {
    case DeltaForm::kLowRank:
      return CheckProduct(module, delta.first, shape, /*may_be_flat=*/false);
    case DeltaForm::kHadamard:
      return CheckSameRank(delta) && CheckProduct(module, delta.first, shape, /*may_be_flat=*/true) &&
             CheckProduct(module, delta.second, shape, /*may_be_flat=*/true);
    case DeltaForm::kGeneralized:
      return CheckSameRank(delta) && CheckProduct(module, delta.first, shape, /*may_be_flat=*/true) &&
             CheckProduct(module, delta.second, {shape.in, shape.in, 1, 1}, /*may_be_flat=*/false);
    case DeltaForm::kKronecker:
      return CheckKronecker(module, delta, shape);
    default:
      return Expect(module, Tensor(*delta.first.whole), weight);
  }
}

bool DeltaReader::CheckSameRank(const ParsedDelta& delta) {
  return delta.first.rank == delta.second.rank ||
         Invalid(absl::StrCat(PrintableName(Tensor(*delta.first.down).name), " has rank ", delta.first.rank, " and ",
                              PrintableName(Tensor(*delta.second.down).name), " has ", delta.second.rank));
}

// PEFT turns the inputs of a 3x3 convolution pixel by pixel in one way while it runs and in another when it merges, so
// only what has a kernel of 1x1 is well defined.
bool DeltaReader::CheckPeftRotation(const AdaptableModule& module, const ParsedDelta& delta, const WeightShape& shape) {
  const StoredTensor& stored = Tensor(*delta.first.whole);
  if (shape.height != 1 || shape.width != 1) {
    return Mismatched(module, stored, "a kernel of 1x1 for OFT of PEFT");
  }
  const int64_t size = stored.shape.size() == 2 ? OftBlockSize(stored.shape[1]) : 0;
  if (size == 0 || shape.in % size != 0 || stored.shape[0] != (delta.peft_oft->block_share ? 1 : shape.in / size)) {
    return Mismatched(module, stored,
                      absl::StrCat("[blocks, size * (size - 1) / 2] for blocks of ", shape.in, " inputs together"));
  }
  return true;
}

bool DeltaReader::CheckRotation(const AdaptableModule& module, const ParsedDelta& delta, const WeightShape& shape) {
  if (delta.peft_oft.has_value()) {
    return CheckPeftRotation(module, delta, shape);
  }
  const StoredTensor& blocks = Tensor(*delta.first.whole);
  const std::vector<int64_t>& stored = blocks.shape;
  if (stored.size() != 3 || stored[1] != stored[2]) {
    return Invalid(
        absl::StrCat(PrintableName(blocks.name), " has shape ", ShapeText(stored), ", not [blocks, size, size]"));
  }
  if (stored[1] < 1 || shape.out % stored[1] != 0 || stored[0] != shape.out / stored[1]) {
    return Mismatched(module, blocks, absl::StrCat("blocks of ", shape.out, " outputs together"));
  }
  return !delta.rescale.has_value() || Expect(module, Tensor(*delta.rescale), {shape.out, 1, 1, 1});
}

bool DeltaReader::CheckRanks(ParsedFactor& factor) {
  for (const std::optional<size_t>& index : {factor.whole, factor.down, factor.up}) {
    if (index.has_value() && Tensor(*index).shape.size() != 2 && Tensor(*index).shape.size() != 4) {
      return Invalid(absl::StrCat(PrintableName(Tensor(*index).name), " has ", Tensor(*index).shape.size(),
                                  " dimensions, not 2 or 4"));
    }
  }
  if (!factor.down.has_value()) {
    return true;
  }
  const StoredTensor& down = Tensor(*factor.down);
  const int64_t up_rank = Tensor(*factor.up).shape[factor.up_transposed ? 0 : 1];
  factor.rank = down.shape[0];
  if (factor.rank < 1 || up_rank != factor.rank || factor.rank > std::numeric_limits<int32_t>::max()) {
    return Invalid(absl::StrCat(PrintableName(down.name), " has rank ", factor.rank, " and its up has ", up_rank,
                                factor.rank < 1 ? "; the lowest is 1" : ""));
  }
  if (factor.mid.has_value()) {
    const StoredTensor& mid = Tensor(*factor.mid);
    if (mid.shape.size() != 4 || mid.shape[0] != factor.rank || mid.shape[1] != factor.rank) {
      return Invalid(absl::StrCat(PrintableName(mid.name), " has shape ", ShapeText(mid.shape), ", not [", factor.rank,
                                  ", ", factor.rank, ", height, width]"));
    }
  }
  return true;
}

bool DeltaReader::CheckProduct(const AdaptableModule& module, const ParsedFactor& factor, const WeightShape& shape,
                               bool may_be_flat) {
  const StoredTensor& down = Tensor(*factor.down);
  std::vector<int64_t> needed_down = {factor.rank, shape.in, shape.height, shape.width};
  if (factor.mid.has_value()) {
    if (!Expect(module, Tensor(*factor.mid), {factor.rank, factor.rank, shape.height, shape.width})) {
      return false;
    }
    needed_down = {factor.rank, shape.in, 1, 1};
  } else if (may_be_flat && down.shape.size() == 2) {
    needed_down = {factor.rank, shape.in * shape.height * shape.width, 1, 1};
  }
  std::vector<int64_t> needed_up = {shape.out, factor.rank, 1, 1};
  if (factor.up_transposed) {
    std::swap(needed_up[0], needed_up[1]);
  }
  const bool fits_down = Expect(module, down, needed_down);
  return Expect(module, Tensor(*factor.up), needed_up) && fits_down;
}

bool DeltaReader::CheckKronecker(const AdaptableModule& module, ParsedDelta& delta, const WeightShape& shape) {
  const ParsedFactor& first = delta.first;
  const StoredTensor& left = Tensor(first.whole.has_value() ? *first.whole : *first.up);
  const StoredTensor& right = Tensor(first.whole.has_value() ? *first.whole : *first.down);
  const WeightShape outer{left.shape[0], right.shape[1], 1, 1};
  if (outer.out < 1 || outer.in < 1 || shape.out % outer.out != 0 || shape.in % outer.in != 0) {
    return Mismatched(module, left, absl::StrCat("a factor of [", shape.out, ", ", shape.in, "]"));
  }
  const WeightShape inner{shape.out / outer.out, shape.in / outer.in, shape.height, shape.width};
  const bool first_fits = first.whole.has_value() ? Expect(module, left, {outer.out, outer.in, 1, 1})
                                                  : CheckProduct(module, first, outer, /*may_be_flat=*/false);
  return first_fits && (delta.second.whole.has_value() ? Expect(module, Tensor(*delta.second.whole),
                                                                {inner.out, inner.in, inner.height, inner.width})
                                                       : CheckProduct(module, delta.second, inner,
                                                                      /*may_be_flat=*/true));
}

bool DeltaReader::CheckMagnitude(const AdaptableModule& module, const WeightShape& shape, ParsedDelta& delta) {
  if (!delta.magnitude.has_value()) {
    return true;
  }
  const StoredTensor& tensor = Tensor(*delta.magnitude);
  const std::vector<int64_t> stored = Padded(tensor.shape);
  const bool fits = !tensor.shape.empty() && tensor.shape.size() <= 4;
  const std::vector<int64_t> second_axis = {1, delta.magnitude_is_peft ? shape.out : shape.in, 1, 1};
  const bool on_first = stored == std::vector<int64_t>{shape.out, 1, 1, 1};
  if (!fits || (!on_first && stored != second_axis)) {
    return Mismatched(module, tensor,
                      absl::StrCat("[", shape.out, "], [", shape.out, ", 1] or [1, ", second_axis[1], "]"));
  }
  delta.magnitude_of_outputs = on_first || delta.magnitude_is_peft;
  return true;
}

// `shape` has four dimensions; a stored tensor without trailing ones is the same.
bool DeltaReader::Expect(const AdaptableModule& module, const StoredTensor& tensor, const std::vector<int64_t>& shape) {
  const std::vector<int64_t> stored = Padded(tensor.shape);
  if (stored == shape && tensor.shape.size() <= stored.size()) {
    return true;
  }
  return Mismatched(module, tensor, ShapeText(shape));
}

}  // namespace hotlora
