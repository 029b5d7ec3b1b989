#include "src/adapters/adapter_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/adapters/key_suffix.h"
#include "src/adapters/peft_scaling.h"
#include "src/adapters/stored_values.h"
#include "src/base/error_details.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

// Far beyond sense, far inside float.
constexpr double kMaxScale = 1e30;
constexpr size_t kNone = std::numeric_limits<size_t>::max();

absl::Status Refuse(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

absl::string_view NameOf(Component component) {
  switch (component) {
    case Component::kTextEncoder:
      return "text_encoder";
    case Component::kTextEncoder2:
      return "text_encoder_2";
    case Component::kUnet:
      return "unet";
  }
  return "";
}

// At most 512 bytes, cut between characters: names are UTF-8 and must stay so.
std::string Shortened(const std::string& name) {
  size_t size = std::min<size_t>(name.size(), 512);
  while (size < name.size() && size > 0 && (name[size] & 0xC0) == 0x80) {
    --size;
  }
  return name.substr(0, size);
}

// The tensors that speak of one module.
struct ModuleKeys {
  size_t part[5] = {kNone, kNone, kNone, kNone, kNone};  // by KeyPart

  size_t operator[](KeyPart which) const { return part[static_cast<size_t>(which)]; }
};

class AdapterParser {
 public:
  AdapterParser(const SafetensorsFile& file, const KeyMap& keys, const ModuleTable& table)
      : file_(file), keys_(keys), table_(table) {}

  absl::Status Parse(const AdapterFileOptions& options) {
    ABSL_RETURN_IF_ERROR(SortKeys());
    ABSL_RETURN_IF_ERROR(CheckUnmatched(options.allow_unmatched_keys));
    ABSL_RETURN_IF_ERROR(ReadPeftScaling(options));
    for (const auto& [module, keys] : modules_) {
      ABSL_RETURN_IF_ERROR(ReadModule(module, keys));
    }
    if (!invalid_.empty()) {
      return Refuse("ADAPTER_INVALID", absl::StrCat("adapter is not sound: ", invalid_.ToString()));
    }
    if (!mismatched_.empty()) {
      return Refuse("ADAPTER_MISMATCH",
                    absl::StrCat("adapter does not fit this model: ", mismatched_.ToString(), ForeignHint()));
    }
    return absl::OkStatus();
  }

  ParsedAdapter Take(SafetensorsFile file) && {
    ParsedAdapter adapter{std::move(file), std::move(deltas_)};
    std::set<std::string> targets;
    bool convolution = false;
    for (const ParsedDelta& delta : adapter.deltas) {
      const AdaptableModule& module = table_.modules[delta.module];
      targets.insert(std::string(NameOf(module.component)));
      adapter.rank_max = std::max(adapter.rank_max, static_cast<uint32_t>(delta.rank));
      convolution |= module.weight_shape.size() == 4 && (module.weight_shape[2] > 1 || module.weight_shape[3] > 1);
      for (const std::optional<size_t>& tensor :
           {std::optional<size_t>(delta.down), std::optional<size_t>(delta.up), delta.mid}) {
        if (tensor.has_value()) {
          adapter.tensor_bytes += LoadedBytes(adapter.file.tensors()[*tensor]);
        }
      }
    }
    adapter.format = convolution ? "locon" : "lora";
    adapter.targets.assign(targets.begin(), targets.end());
    adapter.unmatched_keys = std::move(unmatched_keys_);
    return adapter;
  }

 private:
  const StoredTensor& Tensor(size_t index) const { return file_.tensors()[index]; }

  // Says which tensor belongs to which module, and which to none.
  absl::Status SortKeys() {
    std::map<absl::string_view, NameSample> unsupported;
    for (size_t i = 0; i < file_.tensors().size(); ++i) {
      const std::string& key = Tensor(i).name;
      if (const absl::string_view format = UnsupportedFormatOf(key); !format.empty()) {
        unsupported[format].Add(key);
        continue;
      }
      const std::optional<SplitKey> split = SplitAdapterKey(key);
      const std::optional<size_t> module = split ? keys_.Find(split->module) : std::nullopt;
      if (!module.has_value()) {
        unmatched_.push_back(i);
        continue;
      }
      size_t& place = modules_[*module].part[static_cast<size_t>(split->part)];
      if (place != kNone) {
        invalid_.AddPrintable(
            absl::StrCat(PrintableName(Tensor(place).name), " and ", PrintableName(key), " mean the same"));
      }
      place = i;
    }
    if (!unsupported.empty()) {
      std::vector<std::string> formats;
      for (const auto& [format, sample] : unsupported) {
        formats.push_back(absl::StrCat(format, " (", sample.ToString(), ")"));
      }
      return Refuse("ADAPTER_UNSUPPORTED",
                    absl::StrCat("adapter format is not supported: ", absl::StrJoin(formats, "; ")));
    }
    return absl::OkStatus();
  }

  std::string ForeignHint() const {
    for (const size_t index : unmatched_) {
      if (const absl::string_view model = ForeignModelOf(Tensor(index).name); !model.empty()) {
        return absl::StrCat("; these are keys of an adapter for ", model);
      }
    }
    return foreign_width_ == 0
               ? ""
               : absl::StrCat("; a context of ", foreign_width_,
                              " channels belongs to an adapter for Stable Diffusion ", foreign_width_ == 768 ? 1 : 2);
  }

  absl::Status CheckUnmatched(bool allowed) {
    if (file_.tensors().empty()) {
      return Refuse("ADAPTER_INVALID", "adapter has no tensors");
    }
    if (unmatched_.empty() || (allowed && !modules_.empty())) {
      for (const size_t index : unmatched_) {
        if (unmatched_keys_.size() == kMaxListedKeys) {
          unmatched_keys_.push_back(absl::StrCat("and ", unmatched_.size() - kMaxListedKeys, " more"));
          break;
        }
        unmatched_keys_.push_back(Shortened(Tensor(index).name));
      }
      return absl::OkStatus();
    }
    NameSample sample;
    for (const size_t index : unmatched_) {
      sample.Add(Tensor(index).name);
    }
    return Refuse("ADAPTER_MISMATCH", absl::StrCat(modules_.empty() ? "adapter has no key" : "adapter has keys",
                                                   modules_.empty() ? " that names a module of this model: "
                                                                    : " of modules that this model lacks: ",
                                                   sample.ToString(), ForeignHint()));
  }

  absl::Status ReadPeftScaling(const AdapterFileOptions& options) {
    const auto metadata = file_.metadata().find("lora_adapter_metadata");
    if (options.peft_config.has_value()) {
      ABSL_ASSIGN_OR_RETURN(scaling_, PeftScaling::FromConfig(*options.peft_config));
    } else if (metadata != file_.metadata().end()) {
      ABSL_ASSIGN_OR_RETURN(scaling_, PeftScaling::FromMetadata(metadata->second));
    }
    return absl::OkStatus();
  }

  // Notes what is wrong with one module, or adds its delta. An error only where the PEFT
  // configuration is at fault.
  absl::Status ReadModule(size_t index, const ModuleKeys& keys) {
    const AdaptableModule& module = table_.modules[index];
    if (keys[KeyPart::kDown] == kNone || keys[KeyPart::kUp] == kNone) {
      const size_t present =
          *std::find_if(std::begin(keys.part), std::end(keys.part), [](size_t place) { return place != kNone; });
      invalid_.AddPrintable(absl::StrCat(PrintableName(Tensor(present).name), " lacks its ",
                                         keys[KeyPart::kDown] != kNone ? "up"
                                         : keys[KeyPart::kUp] != kNone ? "down"
                                                                       : "down and up"));
      return absl::OkStatus();
    }
    ParsedDelta delta;
    delta.module = index;
    delta.down = keys[KeyPart::kDown];
    delta.up = keys[KeyPart::kUp];
    if (keys[KeyPart::kMid] != kNone) {
      delta.mid = keys[KeyPart::kMid];
    }
    if (!CheckValues(delta) || !CheckShapes(module, delta)) {
      return absl::OkStatus();
    }
    ABSL_RETURN_IF_ERROR(ReadScale(module, keys, delta));
    deltas_.push_back(delta);
    return absl::OkStatus();
  }

  bool CheckValues(const ParsedDelta& delta) {
    bool sound = true;
    for (const size_t index : {delta.down, delta.up, delta.mid.value_or(delta.up)}) {
      const StoredTensor& tensor = Tensor(index);
      const absl::string_view fault = !IsWeightDtype(tensor.dtype) ? "is no floating-point tensor of 16, 32 or 64 bits"
                                      : AllFinite(tensor, file_.Data(tensor)) ? ""
                                                                              : "has values that are not finite";
      if (!fault.empty()) {
        invalid_.AddPrintable(absl::StrCat(PrintableName(tensor.name), " ", fault));
        sound = false;
        break;
      }
    }
    return sound;
  }

  // Checks dimensions, then ranks against each other, then both sides against the module.
  bool CheckShapes(const AdaptableModule& module, ParsedDelta& delta) {
    const StoredTensor& down = Tensor(delta.down);
    const StoredTensor& up = Tensor(delta.up);
    for (const StoredTensor* tensor : {&down, &up}) {
      if (tensor->shape.size() != 2 && tensor->shape.size() != 4) {
        invalid_.AddPrintable(
            absl::StrCat(PrintableName(tensor->name), " has ", tensor->shape.size(), " dimensions, not 2 or 4"));
        return false;
      }
    }
    delta.rank = down.shape[0];
    if (delta.rank < 1 || up.shape[1] != delta.rank || delta.rank > std::numeric_limits<int32_t>::max()) {
      invalid_.AddPrintable(absl::StrCat(PrintableName(down.name), " has rank ", delta.rank, " and its up has ",
                                         up.shape[1], delta.rank < 1 ? "; the lowest is 1" : ""));
      return false;
    }
    std::vector<int64_t> weight = module.weight_shape;
    weight.resize(4, 1);  // [out, in, kh, kw], a linear module as a 1x1 convolution
    const std::vector<int64_t> kernel = {weight[2], weight[3]};
    if (delta.mid.has_value()) {
      const StoredTensor& mid = Tensor(*delta.mid);
      if (mid.shape.size() != 4 || mid.shape[0] != delta.rank || mid.shape[1] != delta.rank) {
        invalid_.AddPrintable(absl::StrCat(PrintableName(mid.name), " has shape ", ShapeText(mid.shape), ", not [",
                                           delta.rank, ", ", delta.rank, ", height, width]"));
        return false;
      }
      weight[2] = weight[3] = 1;
      if (!Expect(module, mid, {delta.rank, delta.rank, kernel[0], kernel[1]})) {
        return false;
      }
    }
    const bool fits_down = Expect(module, down, {delta.rank, weight[1], weight[2], weight[3]});
    return Expect(module, up, {weight[0], delta.rank, 1, 1}) && fits_down;
  }

  // `shape` has four dimensions; a stored tensor without trailing ones is the same.
  bool Expect(const AdaptableModule& module, const StoredTensor& tensor, const std::vector<int64_t>& shape) {
    std::vector<int64_t> stored = tensor.shape;
    stored.resize(4, 1);
    if (stored == shape) {
      return true;
    }
    mismatched_.AddPrintable(absl::StrCat(PrintableName(tensor.name), " has shape ", ShapeText(tensor.shape),
                                          ", module \"", module.path, "\" needs ", ShapeText(shape)));
    if (absl::StrContains(module.path, ".attn2.") && (stored[1] == 768 || stored[1] == 1024)) {
      foreign_width_ = stored[1];
    }
    return false;
  }

  // Reads the one number of an alpha or scale tensor.
  std::optional<double> ReadNumber(size_t index) {
    const StoredTensor& tensor = Tensor(index);
    const std::optional<double> number = ReadScalar(tensor, file_.Data(tensor));
    if (!number.has_value() || !std::isfinite(*number)) {
      invalid_.AddPrintable(absl::StrCat(PrintableName(tensor.name), " is not one finite number"));
      return std::nullopt;
    }
    return number;
  }

  absl::Status ReadScale(const AdaptableModule& module, const ModuleKeys& keys, ParsedDelta& delta) {
    ABSL_ASSIGN_OR_RETURN(const std::optional<double> configured, scaling_.ScaleOf(module, delta.rank));
    std::optional<double> stored;
    if (keys[KeyPart::kAlpha] != kNone) {
      stored = ReadNumber(keys[KeyPart::kAlpha]);
      if (stored.has_value()) {
        stored = *stored == 0.0 ? 1.0 : *stored / static_cast<double>(delta.rank);
      }
    }
    if (keys[KeyPart::kScale] != kNone) {
      stored = ReadNumber(keys[KeyPart::kScale]);
    }
    if (stored.has_value() && configured.has_value() &&
        std::abs(*stored - *configured) > 1e-3 * std::abs(*configured)) {
      invalid_.AddPrintable(absl::StrCat("module \"", module.path, "\" has scale ", *configured,
                                         " by its PEFT configuration and ", *stored, " by its alpha"));
    }
    delta.scale = stored.value_or(configured.value_or(1.0));
    if (std::abs(delta.scale) > kMaxScale) {
      invalid_.AddPrintable(absl::StrCat("module \"", module.path, "\" has scale ", delta.scale));
    }
    return absl::OkStatus();
  }

  const SafetensorsFile& file_;
  const KeyMap& keys_;
  const ModuleTable& table_;
  PeftScaling scaling_;
  std::map<size_t, ModuleKeys> modules_;
  std::vector<size_t> unmatched_;
  std::vector<std::string> unmatched_keys_;
  std::vector<ParsedDelta> deltas_;
  NameSample invalid_, mismatched_;
  int64_t foreign_width_ = 0;
};

}  // namespace

absl::StatusOr<ParsedAdapter> ParseAdapter(SafetensorsFile file, const KeyMap& keys, const ModuleTable& table,
                                           const AdapterFileOptions& options) {
  AdapterParser parser(file, keys, table);
  ABSL_RETURN_IF_ERROR(parser.Parse(options));
  return std::move(parser).Take(std::move(file));
}

}  // namespace hotlora
