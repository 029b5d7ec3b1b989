#include "src/adapter_format/delta_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/adapter_format/stored_values.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// Far beyond sense, far inside float.
constexpr double kMaxScale = 1e30;

// The first of the parts that is there.
std::optional<KeyPart> FirstOf(const ModuleKeys& keys, KeyPart first, KeyPart last) {
  for (size_t part = static_cast<size_t>(first); part <= static_cast<size_t>(last); ++part) {
    if (keys.part[part].has_value()) {
      return static_cast<KeyPart>(part);
    }
  }
  return std::nullopt;
}

}  // namespace

bool ModuleKeys::SpeaksOfWeight() const {
  for (size_t i = 0; i < kKeyParts; ++i) {
    const KeyPart which = static_cast<KeyPart>(i);
    if (part[i].has_value() && which != KeyPart::kDiffBias && which != KeyPart::kUpBias) {
      return true;
    }
  }
  return false;
}

absl::Status DeltaReader::Read(const ModuleTable& table, size_t index, const ModuleKeys& keys,
                               std::vector<ParsedDelta>& deltas) {
  const AdaptableModule& module = table.modules[index];
  ParsedDelta delta;
  delta.module = index;
  if (keys.SpeaksOfWeight()) {
    if (!ChooseForm(module, keys, delta) || !CheckValues(delta) || !ShapeChecker(file_, module, faults_).Check(delta)) {
      return absl::OkStatus();
    }
    if (scaling_.UsesDora(module) && !delta.magnitude.has_value()) {
      AddInvalid(absl::StrCat("module \"", module.path,
                              "\" has no magnitude tensor, but its PEFT configuration has use_dora"));
      return absl::OkStatus();
    }
    ABSL_RETURN_IF_ERROR(ReadScale(module, keys, delta));
    deltas.push_back(delta);
  }
  if (keys[KeyPart::kDiffBias].has_value() || keys[KeyPart::kUpBias].has_value()) {
    if (std::optional<ParsedDelta> bias = ReadBias(table, module, keys, delta); bias.has_value()) {
      deltas.push_back(*std::move(bias));
    }
  }
  return absl::OkStatus();
}

std::optional<ParsedDelta> DeltaReader::ReadBias(const ModuleTable& table, const AdaptableModule& module,
                                                 const ModuleKeys& keys, const ParsedDelta& weight) {
  const bool of_up = keys[KeyPart::kUpBias].has_value();
  const StoredTensor& tensor = Tensor(of_up ? *keys[KeyPart::kUpBias] : *keys[KeyPart::kDiffBias]);
  if (of_up && keys[KeyPart::kDiffBias].has_value()) {
    AddInvalid(absl::StrCat(PrintableName(tensor.name), " and ", NameOfTensor(*keys[KeyPart::kDiffBias]),
                            " are two changes of one bias"));
    return std::nullopt;
  }
  if (of_up && (!weight.first.up.has_value() || weight.magnitude.has_value())) {
    AddInvalid(absl::StrCat(PrintableName(tensor.name),
                            " needs a LoRA of the same module without a magnitude, and the file has none"));
    return std::nullopt;
  }
  if (!module.bias.has_value()) {
    faults_.mismatched.AddPrintable(
        absl::StrCat(PrintableName(tensor.name), " changes a bias, and module \"", module.path, "\" has none"));
    return std::nullopt;
  }
  ParsedDelta bias;
  bias.module = *module.bias;
  bias.form = DeltaForm::kFull;
  bias.first.whole = of_up ? keys[KeyPart::kUpBias] : keys[KeyPart::kDiffBias];
  bias.scale = of_up ? weight.scale : 1.0;
  if (!CheckValues(bias) || !ShapeChecker(file_, table.modules[bias.module], faults_).Check(bias)) {
    return std::nullopt;
  }
  return bias;
}

bool DeltaReader::ChooseForm(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
  const std::pair<DeltaForm, std::optional<KeyPart>> forms[] = {
      {DeltaForm::kLowRank, FirstOf(keys, KeyPart::kDown, KeyPart::kMid)},
      {DeltaForm::kHadamard, FirstOf(keys, KeyPart::kHadaW1A, KeyPart::kHadaT2)},
      {DeltaForm::kKronecker, FirstOf(keys, KeyPart::kLokrW1, KeyPart::kLokrT2)},
      {DeltaForm::kGeneralized, FirstOf(keys, KeyPart::kGloraA1, KeyPart::kGloraBm)},
      {DeltaForm::kRotation, FirstOf(keys, KeyPart::kOftBlocks, KeyPart::kOftR)},
      {DeltaForm::kFull, FirstOf(keys, KeyPart::kDiff, KeyPart::kDiff)}};
  std::optional<KeyPart> chosen;
  for (const auto& [form, part] : forms) {
    if (part.has_value() && chosen.has_value()) {
      AddInvalid(absl::StrCat(NameOfTensor(*keys[*chosen]), " and ", NameOfTensor(*keys[*part]),
                              " are two changes of one module"));
      return false;
    }
    if (part.has_value()) {
      chosen = part;
      delta.form = form;
    }
  }
  if (module.shape.size() == 1 && chosen.has_value() && delta.form != DeltaForm::kFull) {
    faults_.mismatched.AddPrintable(MisfitText(module, Tensor(*keys[*chosen]), "a difference: it is a norm"));
    return false;
  }
  if (keys[KeyPart::kDoraScale].has_value() && keys[KeyPart::kMagnitudeVector].has_value()) {
    AddInvalid(absl::StrCat(NameOfTensor(*keys[KeyPart::kDoraScale]), " and ",
                            NameOfTensor(*keys[KeyPart::kMagnitudeVector]), " mean the same"));
    return false;
  }
  delta.magnitude = keys[KeyPart::kDoraScale].has_value() ? keys[KeyPart::kDoraScale] : keys[KeyPart::kMagnitudeVector];
  delta.magnitude_is_peft = keys[KeyPart::kMagnitudeVector].has_value();
  for (const KeyPart part : {KeyPart::kDoraScale, KeyPart::kMagnitudeVector}) {
    if (keys[part].has_value() && (delta.form == DeltaForm::kRotation || module.shape.size() == 1)) {
      AddInvalid(absl::StrCat(NameOfTensor(*keys[part]),
                              " is a magnitude, but this module or this kind of adapter cannot have one"));
      return false;
    }
  }
  if (keys[KeyPart::kRescale].has_value() && delta.form != DeltaForm::kRotation) {
    AddInvalid(absl::StrCat(NameOfTensor(*keys[KeyPart::kRescale]), " lacks its oft_blocks"));
    return false;
  }
  return TakeParts(module, keys, delta);
}

bool DeltaReader::TakeParts(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
  switch (delta.form) {
    case DeltaForm::kLowRank:
      return TakeFactor(keys, {std::nullopt, KeyPart::kDown, KeyPart::kUp, KeyPart::kMid}, delta.first);
    case DeltaForm::kHadamard:
      if ((keys[KeyPart::kHadaT1].has_value() || keys[KeyPart::kHadaT2].has_value()) &&
          !Require(keys, {KeyPart::kHadaT1, KeyPart::kHadaT2})) {
        return false;
      }
      return TakeFactor(keys, {std::nullopt, KeyPart::kHadaW1B, KeyPart::kHadaW1A, KeyPart::kHadaT1}, delta.first) &&
             TakeFactor(keys, {std::nullopt, KeyPart::kHadaW2B, KeyPart::kHadaW2A, KeyPart::kHadaT2}, delta.second);
    case DeltaForm::kKronecker:
      return TakeFactor(keys, {KeyPart::kLokrW1, KeyPart::kLokrW1B, KeyPart::kLokrW1A, std::nullopt}, delta.first) &&
             TakeFactor(keys, {KeyPart::kLokrW2, KeyPart::kLokrW2B, KeyPart::kLokrW2A, KeyPart::kLokrT2}, delta.second);
    case DeltaForm::kGeneralized:
      return TakeGeneralized(module, keys, delta);
    case DeltaForm::kRotation:
      return TakeRotation(module, keys, delta);
    case DeltaForm::kFull:
      delta.first.whole = keys[KeyPart::kDiff];
      return true;
  }
  return false;
}

bool DeltaReader::TakeRotation(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
  if (!keys[KeyPart::kOftR].has_value()) {
    delta.first.whole = keys[KeyPart::kOftBlocks];
    delta.rescale = keys[KeyPart::kRescale];
    return true;
  }
  const std::string name = NameOfTensor(*keys[KeyPart::kOftR]);
  delta.first.whole = keys[KeyPart::kOftR];
  delta.peft_oft = scaling_.OftOf(module);
  for (const KeyPart part : {KeyPart::kOftBlocks, KeyPart::kRescale, KeyPart::kAlpha}) {
    if (keys[part].has_value()) {
      AddInvalid(absl::StrCat(name, " and ", NameOfTensor(*keys[part]), " are of two formats"));
      return false;
    }
  }
  if (!delta.peft_oft.has_value()) {
    AddInvalid(absl::StrCat(name, " is OFT of PEFT, and no adapter_config.json says how to read it"));
    return false;
  }
  return true;
}

// LyCORIS has stored GLoRA in two ways: today a1 [in, r], a2 [r, in], b1 [out, r], b2 [r, in], at first a1 [r, in],
// a2 [in, r], b1 [r, in], b2 [out, r]. Where both would fit, a square of full rank, other programs read the older one.
bool DeltaReader::TakeGeneralized(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
  if (!Require(keys, {KeyPart::kGloraA1, KeyPart::kGloraA2, KeyPart::kGloraB1, KeyPart::kGloraB2})) {
    return false;
  }
  const std::vector<int64_t> a1 = FourDimensions(Tensor(*keys[KeyPart::kGloraA1]).shape);
  const int64_t out = module.shape[0], in = module.shape[1];
  const bool old = a1[1] == in && (a1[0] != in || out == in);
  const FactorParts added = old ? FactorParts{std::nullopt, KeyPart::kGloraB1, KeyPart::kGloraB2, KeyPart::kGloraBm}
                                : FactorParts{std::nullopt, KeyPart::kGloraB2, KeyPart::kGloraB1, KeyPart::kGloraBm};
  const FactorParts mixed = old ? FactorParts{std::nullopt, KeyPart::kGloraA1, KeyPart::kGloraA2, std::nullopt}
                                : FactorParts{std::nullopt, KeyPart::kGloraA2, KeyPart::kGloraA1, std::nullopt};
  if (!TakeFactor(keys, added, delta.first) || !TakeFactor(keys, mixed, delta.second)) {
    return false;
  }
  delta.first.up_transposed = false;  // unlike the Tucker forms of LoHa and LoKr
  return true;
}

bool DeltaReader::Require(const ModuleKeys& keys, std::initializer_list<KeyPart> parts) {
  std::vector<absl::string_view> missing;
  for (const KeyPart part : parts) {
    if (!keys[part].has_value()) {
      missing.push_back(NameOf(part));
    }
  }
  if (missing.empty()) {
    return true;
  }
  const size_t present = **std::find_if(std::begin(keys.part), std::end(keys.part),
                                        [](const std::optional<size_t>& tensor) { return tensor.has_value(); });
  AddInvalid(absl::StrCat(NameOfTensor(present), " lacks its ", absl::StrJoin(missing, " and ")));
  return false;
}

bool DeltaReader::TakeFactor(const ModuleKeys& keys, const FactorParts& parts, ParsedFactor& factor) {
  factor.down = keys[parts.down];
  factor.up = keys[parts.up];
  if (parts.mid.has_value()) {
    factor.mid = keys[*parts.mid];
  }
  if (parts.whole.has_value()) {
    const std::vector<size_t> thin = factor.Tensors();
    if (thin.empty()) {
      factor.whole = keys[*parts.whole];
      return Require(keys, {*parts.whole});
    }
    if (keys[*parts.whole].has_value()) {
      AddInvalid(absl::StrCat(NameOfTensor(*keys[*parts.whole]), " and ", NameOfTensor(thin[0]),
                              " are one factor, whole and as a product"));
      return false;
    }
  }
  factor.up_transposed = factor.mid.has_value() && parts.mid != KeyPart::kMid;
  return Require(keys, {parts.down, parts.up});
}

bool DeltaReader::CheckValues(const ParsedDelta& delta) {
  for (const size_t index : delta.Tensors()) {
    const StoredTensor& tensor = Tensor(index);
    const absl::string_view fault = !IsWeightDtype(tensor.dtype) ? "is not a floating-point tensor of 16, 32 or 64 bits"
                                    : AllFinite(tensor, file_.Data(tensor)) ? ""
                                                                            : "has values that are not finite";
    if (!fault.empty()) {
      AddInvalid(absl::StrCat(PrintableName(tensor.name), " ", fault));
      return false;
    }
  }
  return true;
}

// Reads the one number of an alpha or scale tensor.
std::optional<double> DeltaReader::ReadNumber(size_t index) {
  const StoredTensor& tensor = Tensor(index);
  const std::optional<double> number = ReadScalar(tensor, file_.Data(tensor));
  if (!number.has_value() || !std::isfinite(*number)) {
    AddInvalid(absl::StrCat(PrintableName(tensor.name), " is not one finite number"));
    return std::nullopt;
  }
  return number;
}

// kohya and LyCORIS store the bound for one output.
void DeltaReader::ReadConstraint(const AdaptableModule& module, size_t alpha, ParsedDelta& delta) {
  const std::optional<double> stored = ReadNumber(alpha);
  if (stored.has_value() && *stored < 0.0) {
    AddInvalid(absl::StrCat(NameOfTensor(alpha), " is ", *stored, ", a bound below 0"));
  }
  delta.constraint = stored.value_or(0.0) * static_cast<double>(module.shape[0]);
}

absl::Status DeltaReader::ReadScale(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
  std::optional<double> configured;
  if (delta.form == DeltaForm::kLowRank) {
    ABSL_ASSIGN_OR_RETURN(configured, scaling_.ScaleOf(module, delta.rank));
  }
  std::optional<double> stored;
  if (keys[KeyPart::kAlpha].has_value() && delta.form == DeltaForm::kRotation) {
    ReadConstraint(module, *keys[KeyPart::kAlpha], delta);
  }
  // Trainers of whole factors store a rank such as 100000 here, which is infinite in float16.
  if (keys[KeyPart::kAlpha].has_value() && delta.rank > 0) {
    stored = ReadNumber(*keys[KeyPart::kAlpha]);
    if (stored.has_value()) {
      stored = *stored == 0.0 ? 1.0 : *stored / static_cast<double>(delta.rank);
    }
  }
  if (keys[KeyPart::kScale].has_value()) {
    stored = ReadNumber(*keys[KeyPart::kScale]);
  }
  if (stored.has_value() && configured.has_value() && std::abs(*stored - *configured) > 1e-3 * std::abs(*configured)) {
    AddInvalid(absl::StrCat("module \"", module.path, "\" has scale ", *configured, " by its PEFT configuration and ",
                            *stored, " by its alpha"));
  }
  delta.scale = stored.value_or(configured.value_or(1.0));
  if (std::abs(delta.scale) > kMaxScale) {
    AddInvalid(absl::StrCat("module \"", module.path, "\" has scale ", delta.scale));
  }
  return absl::OkStatus();
}

}  // namespace hotlora
