#ifndef HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_
#define HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_

// What the tensors of one module say together, in whichever format. No LibTorch here.

#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "src/adapter_format/key_suffix.h"
#include "src/adapter_format/parsed_delta.h"
#include "src/adapter_format/peft_scaling.h"
#include "src/adapter_format/shape_checker.h"
#include "src/base/printable.h"
#include "src/weights/module_table.h"
#include "src/weights/safetensors_file.h"

namespace hotlora {

// The tensors that speak of one module, by KeyPart.
struct ModuleKeys {
  std::optional<size_t> part[kKeyParts];

  const std::optional<size_t>& operator[](KeyPart which) const { return part[static_cast<size_t>(which)]; }
  std::optional<size_t>& operator[](KeyPart which) { return part[static_cast<size_t>(which)]; }

  // Whether anything here is of the weight, and not of the bias alone.
  bool SpeaksOfWeight() const;
};

// Reads modules one by one; ParseAdapter has the rules. Its arguments outlive it. A private function that returns false
// or nothing has added a fault.
class DeltaReader {
 public:
  DeltaReader(const SafetensorsFile& file, const PeftScaling& scaling, DeltaFaults& faults)
      : file_(file), scaling_(scaling), faults_(faults) {}

  // Appends the changes of the module at `index` (of its weight and its bias), or none if `faults` now says what is
  // wrong. An error only if the PEFT configuration is at fault.
  absl::Status Read(const ModuleTable& table, size_t index, const ModuleKeys& keys, std::vector<ParsedDelta>& deltas);

 private:
  struct FactorParts {
    std::optional<KeyPart> whole;
    KeyPart down, up;
    std::optional<KeyPart> mid;
  };

  const StoredTensor& Tensor(size_t index) const { return file_.tensors()[index]; }
  std::string NameOfTensor(size_t index) const { return PrintableName(Tensor(index).name); }
  void AddInvalid(std::string what) { faults_.invalid.AddPrintable(std::move(what)); }

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
  std::optional<double> ReadNumber(size_t index);
  void ReadConstraint(const AdaptableModule& module, size_t alpha, ParsedDelta& delta);
  absl::Status ReadScale(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta);

  const SafetensorsFile& file_;
  const PeftScaling& scaling_;
  DeltaFaults& faults_;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTER_FORMAT_DELTA_READER_H_
