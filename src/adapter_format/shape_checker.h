#ifndef HOTLORA_SRC_ADAPTER_FORMAT_SHAPE_CHECKER_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_SHAPE_CHECKER_H_

// The shapes that the tensors of a change may have. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "src/adapter_format/parsed_delta.h"
#include "src/base/printable.h"
#include "src/weights/module_table.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// What is wrong with an adapter, collected over all modules.
struct DeltaFaults {
  NameSample invalid;     // not sound
  NameSample mismatched;  // sound, but does not fit the model
};

// The shape with as many trailing dimensions of 1 as make it four. REQUIRES: at most 4 dimensions.
std::vector<int64_t> FourDimensions(std::vector<int64_t> shape);

// A fault of DeltaFaults::mismatched: the tensor's shape, and the one that the module needs.
std::string MisfitText(const AdaptableModule& module, const StoredTensor& tensor, const std::string& needed);

// Checks the tensors of one change against each other and against the module; ParseAdapter has the shapes of all
// formats. Its arguments outlive it.
class ShapeChecker {
 public:
  ShapeChecker(const SafetensorsFile& file, const AdaptableModule& module, DeltaFaults& faults);

  // False if a fault was added. Fills in the ranks and which axis the magnitude is of.
  // REQUIRES: the tensors that the change's form needs are there.
  bool Check(ParsedDelta& delta);

 private:
  // A weight as a convolution's: a linear module has a kernel of 1x1.
  struct WeightShape {
    int64_t out, in, height, width;
  };

  bool CheckRanks(ParsedFactor& factor);
  bool CheckSameRank(const ParsedDelta& delta);
  bool CheckProduct(const ParsedFactor& factor, const WeightShape& shape, bool may_be_flat);
  bool CheckKronecker(const ParsedDelta& delta);
  bool CheckRotation(const ParsedDelta& delta);
  bool CheckPeftRotation(const ParsedDelta& delta);
  bool CheckMagnitude(ParsedDelta& delta);
  bool Expect(const StoredTensor& tensor, const std::vector<int64_t>& shape);

  const StoredTensor& Tensor(size_t index) const { return file_.tensors()[index]; }
  void AddInvalid(std::string what) { faults_.invalid.AddPrintable(std::move(what)); }
  void AddMismatch(const StoredTensor& tensor, const std::string& needed) {
    faults_.mismatched.AddPrintable(MisfitText(module_, tensor, needed));
  }

  const SafetensorsFile& file_;
  const AdaptableModule& module_;
  DeltaFaults& faults_;
  const WeightShape shape_;  // of the module
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_SHAPE_CHECKER_H_
