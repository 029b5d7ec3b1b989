#ifndef HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_

// What the tensors of one module say together, in whichever format. No LibTorch here.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "src/adapter_format/key_suffix.h"
#include "src/adapter_format/peft_scaling.h"
#include "src/base/printable.h"
#include "src/weights/module_table.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// The forms of nn/lora_delta.h.
enum class DeltaForm { kLowRank, kHadamard, kKronecker, kFull, kGeneralized, kRotation };

// One matrix of a change, as places in the file: whole, or down and up, perhaps with mid.
struct ParsedFactor {
  std::optional<size_t> whole;
  std::optional<size_t> down, up, mid;
  bool up_transposed = false;  // LyCORIS' Tucker forms store [rank, out]
  int64_t rank = 0;            // 0 if it is whole

  // All that are there.
  std::vector<size_t> Tensors() const;
};

// One parameter's change, as places in the file.
struct ParsedDelta {
  size_t module = 0;  // index into ModuleTable::modules
  DeltaForm form = DeltaForm::kLowRank;
  ParsedFactor first, second;  // second for LoHa, LoKr, and GLoRA's mixed inputs; whole blocks of OFT are first
  std::optional<size_t> rescale;
  double constraint = 0.0;          // OFT: the most that the norm of all its skew blocks may be; 0: anything
  std::optional<PeftOft> peft_oft;  // `first` is oft_R then, the upper triangles of blocks of the inputs
  std::optional<size_t> magnitude;
  bool magnitude_is_peft = false;    // whose spelling always means outputs
  bool magnitude_of_outputs = true;  // else of inputs
  int64_t rank = 0;                  // 0 if nothing is a product
  double scale = 1.0;                // alpha / rank, or what replaces it

  // All but alpha and scale.
  std::vector<size_t> Tensors() const;
};

// The side of a square block whose upper triangle, without the diagonal, has `numbers` numbers; 0 if there is none.
int64_t OftBlockSize(int64_t numbers);

// The tensors that speak of one module, by KeyPart.
struct ModuleKeys {
  std::optional<size_t> part[kKeyParts];

  const std::optional<size_t>& operator[](KeyPart which) const { return part[static_cast<size_t>(which)]; }
  std::optional<size_t>& operator[](KeyPart which) { return part[static_cast<size_t>(which)]; }

  // Whether anything here is of the weight, and not of the bias alone.
  bool SpeaksOfWeight() const;
};

// What is wrong with an adapter, collected over all modules.
struct DeltaFaults {
  NameSample invalid, mismatched;
};

// Reads modules one by one; ParseAdapter has the rules. Its arguments outlive it.
class DeltaReader {
 public:
  DeltaReader(const SafetensorsFile& file, const PeftScaling& scaling, DeltaFaults& faults)
      : file_(file), scaling_(scaling), faults_(faults) {}

  // Appends the changes of the module at `index` (of its weight and its bias), or none if `faults` now says what is
  // wrong. An error only if the PEFT configuration is at fault.
  absl::Status Read(const ModuleTable& table, size_t index, const ModuleKeys& keys, std::vector<ParsedDelta>& deltas);

 private:
  // A module's weight as a convolution's: a linear module has a kernel of 1x1.
  struct WeightShape {
    int64_t out, in, height, width;
  };
  struct FactorParts {
    std::optional<KeyPart> whole;
    KeyPart down, up;
    std::optional<KeyPart> mid;
  };

  // Trailing dimensions of 1 are no difference. REQUIRES: at most 4 dimensions.
  static std::vector<int64_t> Padded(std::vector<int64_t> shape);

  const StoredTensor& Tensor(size_t index) const { return file_.tensors()[index]; }
  bool Invalid(std::string what);                                                                         // false
  bool Mismatched(const AdaptableModule& module, const StoredTensor& tensor, const std::string& needed);  // false

  // `weight` is the change of the module's weight, empty if there is none.
  std::optional<ParsedDelta> ReadBias(const ModuleTable& table, const AdaptableModule& module, const ModuleKeys& keys,
                                      const ParsedDelta& weight);
  bool ChooseForm(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);
  bool TakeParts(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);
  bool TakeRotation(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);
  bool TakeGeneralized(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);
  bool TakeFactor(const ModuleKeys& keys, const FactorParts& parts, ParsedFactor& factor);
  bool Require(const ModuleKeys& keys, std::initializer_list<KeyPart> parts);
  bool CheckValues(const ParsedDelta& delta);
  // Defined in delta_shapes.cc.
  bool CheckShapes(const AdaptableModule& module, ParsedDelta& delta);
  bool CheckRanks(ParsedFactor& factor);
  bool CheckProduct(const AdaptableModule& module, const ParsedFactor& factor, const WeightShape& shape,
                    bool may_be_flat);
  bool CheckSameRank(const ParsedDelta& delta);
  bool CheckKronecker(const AdaptableModule& module, ParsedDelta& delta, const WeightShape& shape);
  bool CheckPeftRotation(const AdaptableModule& module, const ParsedDelta& delta, const WeightShape& shape);
  bool CheckRotation(const AdaptableModule& module, const ParsedDelta& delta, const WeightShape& shape);
  bool CheckMagnitude(const AdaptableModule& module, const WeightShape& shape, ParsedDelta& delta);
  bool Expect(const AdaptableModule& module, const StoredTensor& tensor, const std::vector<int64_t>& shape);
  std::optional<double> ReadNumber(size_t index);
  void ReadConstraint(const AdaptableModule& module, size_t alpha, ParsedDelta& delta);
  absl::Status ReadScale(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);

  const SafetensorsFile& file_;
  const PeftScaling& scaling_;
  DeltaFaults& faults_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_
