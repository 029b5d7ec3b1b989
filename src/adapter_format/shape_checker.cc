#include "src/adapter_format/shape_checker.h"

#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hotlora {

std::vector<int64_t> FourDimensions(std::vector<int64_t> shape) {
  shape.resize(4, 1);
  return shape;
}

std::string MisfitText(const AdaptableModule& module, const StoredTensor& tensor, const std::string& needed) {
  return absl::StrCat(PrintableName(tensor.name), " has shape ", ShapeText(tensor.shape), ", module \"", module.path,
                      "\" needs ", needed);
}

ShapeChecker::ShapeChecker(const SafetensorsFile& file, const AdaptableModule& module, DeltaFaults& faults)
    : file_(file), module_(module), faults_(faults), shape_([&] {
        const std::vector<int64_t> shape = FourDimensions(module.shape);
        return WeightShape{shape[0], shape[1], shape[2], shape[3]};
      }()) {}

// Dimensions first, then ranks against each other, then everything against the module.
bool ShapeChecker::Check(ParsedDelta& delta) {
  if (delta.form == DeltaForm::kRotation) {
    return CheckRotation(delta);
  }
  if (module_.shape.size() == 1) {
    return Expect(Tensor(*delta.first.whole), FourDimensions(module_.shape));
  }
  if (!CheckRanks(delta.first) || !CheckRanks(delta.second)) {
    return false;
  }
  delta.rank = delta.second.rank > 0 ? delta.second.rank : delta.first.rank;
  if (!CheckMagnitude(delta)) {
    return false;
  }
  switch (delta.form) {
    case DeltaForm::kLowRank:
      return CheckProduct(delta.first, shape_, /*may_be_flat=*/false);
    case DeltaForm::kHadamard:
      return CheckSameRank(delta) && CheckProduct(delta.first, shape_, /*may_be_flat=*/true) &&
             CheckProduct(delta.second, shape_, /*may_be_flat=*/true);
    case DeltaForm::kGeneralized:
      return CheckSameRank(delta) && CheckProduct(delta.first, shape_, /*may_be_flat=*/true) &&
             CheckProduct(delta.second, {shape_.in, shape_.in, 1, 1}, /*may_be_flat=*/false);
    case DeltaForm::kKronecker:
      return CheckKronecker(delta);
    default:
      return Expect(Tensor(*delta.first.whole), FourDimensions(module_.shape));
  }
}

bool ShapeChecker::CheckSameRank(const ParsedDelta& delta) {
  if (delta.first.rank == delta.second.rank) {
    return true;
  }
  AddInvalid(absl::StrCat(PrintableName(Tensor(*delta.first.down).name), " has rank ", delta.first.rank, " and ",
                          PrintableName(Tensor(*delta.second.down).name), " has ", delta.second.rank));
  return false;
}

// PEFT turns the inputs of a 3x3 convolution pixel by pixel in one way while it runs and in another when it merges, so
// only what has a kernel of 1x1 is well defined.
bool ShapeChecker::CheckPeftRotation(const ParsedDelta& delta) {
  const StoredTensor& stored = Tensor(*delta.first.whole);
  if (shape_.height != 1 || shape_.width != 1) {
    AddMismatch(stored, "a kernel of 1x1 for OFT of PEFT");
    return false;
  }
  const int64_t size = stored.shape.size() == 2 ? OftBlockSize(stored.shape[1]) : 0;
  if (size == 0 || shape_.in % size != 0 || stored.shape[0] != (delta.peft_oft->block_share ? 1 : shape_.in / size)) {
    AddMismatch(stored, absl::StrCat("[blocks, size * (size - 1) / 2] for blocks of ", shape_.in, " inputs together"));
    return false;
  }
  return true;
}

bool ShapeChecker::CheckRotation(const ParsedDelta& delta) {
  if (delta.peft_oft.has_value()) {
    return CheckPeftRotation(delta);
  }
  const StoredTensor& blocks = Tensor(*delta.first.whole);
  const std::vector<int64_t>& stored = blocks.shape;
  if (stored.size() != 3 || stored[1] != stored[2]) {
    AddInvalid(
        absl::StrCat(PrintableName(blocks.name), " has shape ", ShapeText(stored), ", not [blocks, size, size]"));
    return false;
  }
  if (stored[1] < 1 || shape_.out % stored[1] != 0 || stored[0] != shape_.out / stored[1]) {
    AddMismatch(blocks, absl::StrCat("blocks of ", shape_.out, " outputs together"));
    return false;
  }
  return !delta.rescale.has_value() || Expect(Tensor(*delta.rescale), {shape_.out, 1, 1, 1});
}

bool ShapeChecker::CheckRanks(ParsedFactor& factor) {
  for (const std::optional<size_t>& index : {factor.whole, factor.down, factor.up}) {
    if (index.has_value() && Tensor(*index).shape.size() != 2 && Tensor(*index).shape.size() != 4) {
      AddInvalid(absl::StrCat(PrintableName(Tensor(*index).name), " has ", Tensor(*index).shape.size(),
                              " dimensions, not 2 or 4"));
      return false;
    }
  }
  if (!factor.down.has_value()) {
    return true;
  }
  const StoredTensor& down = Tensor(*factor.down);
  const int64_t up_rank = Tensor(*factor.up).shape[factor.up_transposed ? 0 : 1];
  factor.rank = down.shape[0];
  if (factor.rank < 1 || up_rank != factor.rank || factor.rank > std::numeric_limits<int32_t>::max()) {
    AddInvalid(absl::StrCat(PrintableName(down.name), " has rank ", factor.rank, " and its up has ", up_rank,
                            factor.rank < 1 ? "; the lowest is 1" : ""));
    return false;
  }
  if (factor.mid.has_value()) {
    const StoredTensor& mid = Tensor(*factor.mid);
    if (mid.shape.size() != 4 || mid.shape[0] != factor.rank || mid.shape[1] != factor.rank) {
      AddInvalid(absl::StrCat(PrintableName(mid.name), " has shape ", ShapeText(mid.shape), ", not [", factor.rank,
                              ", ", factor.rank, ", height, width]"));
      return false;
    }
  }
  return true;
}

bool ShapeChecker::CheckProduct(const ParsedFactor& factor, const WeightShape& shape, bool may_be_flat) {
  const StoredTensor& down = Tensor(*factor.down);
  std::vector<int64_t> needed_down = {factor.rank, shape.in, shape.height, shape.width};
  if (factor.mid.has_value()) {
    if (!Expect(Tensor(*factor.mid), {factor.rank, factor.rank, shape.height, shape.width})) {
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
  const bool fits_down = Expect(down, needed_down);
  return Expect(Tensor(*factor.up), needed_up) && fits_down;
}

bool ShapeChecker::CheckKronecker(const ParsedDelta& delta) {
  const ParsedFactor &first = delta.first, &second = delta.second;
  const StoredTensor& left = Tensor(first.whole.has_value() ? *first.whole : *first.up);
  const StoredTensor& right = Tensor(first.whole.has_value() ? *first.whole : *first.down);
  const WeightShape outer{left.shape[0], right.shape[1], 1, 1};
  if (outer.out < 1 || outer.in < 1 || shape_.out % outer.out != 0 || shape_.in % outer.in != 0) {
    AddMismatch(left, absl::StrCat("a factor of [", shape_.out, ", ", shape_.in, "]"));
    return false;
  }
  const WeightShape inner{shape_.out / outer.out, shape_.in / outer.in, shape_.height, shape_.width};
  const bool first_fits = first.whole.has_value() ? Expect(left, {outer.out, outer.in, 1, 1})
                                                  : CheckProduct(first, outer, /*may_be_flat=*/false);
  if (!first_fits) {
    return false;
  }
  return second.whole.has_value() ? Expect(Tensor(*second.whole), {inner.out, inner.in, inner.height, inner.width})
                                  : CheckProduct(second, inner, /*may_be_flat=*/true);
}

bool ShapeChecker::CheckMagnitude(ParsedDelta& delta) {
  if (!delta.magnitude.has_value()) {
    return true;
  }
  const StoredTensor& tensor = Tensor(*delta.magnitude);
  const std::vector<int64_t> stored = FourDimensions(tensor.shape);
  const bool fits = !tensor.shape.empty() && tensor.shape.size() <= 4;
  const std::vector<int64_t> second_axis = {1, delta.magnitude_is_peft ? shape_.out : shape_.in, 1, 1};
  const bool on_first = stored == std::vector<int64_t>{shape_.out, 1, 1, 1};
  if (!fits || (!on_first && stored != second_axis)) {
    AddMismatch(tensor, absl::StrCat("[", shape_.out, "], [", shape_.out, ", 1] or [1, ", second_axis[1], "]"));
    return false;
  }
  delta.magnitude_of_outputs = on_first || delta.magnitude_is_peft;
  return true;
}

// `shape` has four dimensions; a stored tensor without trailing ones is the same.
bool ShapeChecker::Expect(const StoredTensor& tensor, const std::vector<int64_t>& shape) {
  if (tensor.shape.size() <= shape.size() && FourDimensions(tensor.shape) == shape) {
    return true;
  }
  AddMismatch(tensor, ShapeText(shape));
  return false;
}

}  // namespace hotlora
