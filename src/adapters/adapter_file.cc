#include "src/adapters/adapter_file.h"

#include <algorithm>
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

absl::Status Refuse(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

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

std::string FormatOf(absl::Span<const ParsedDelta> deltas, const ModuleTable& table) {
  std::set<absl::string_view> found;
  for (const ParsedDelta& delta : deltas) {
    const std::vector<int64_t>& shape = table.modules[delta.module].weight_shape;
    const bool large_kernel = shape.size() == 4 && (shape[2] > 1 || shape[3] > 1);
    found.insert(delta.magnitude.has_value()           ? "dora"
                 : delta.form == DeltaForm::kKronecker ? "lokr"
                 : delta.form == DeltaForm::kHadamard  ? "loha"
                 : delta.form == DeltaForm::kFull      ? "full"
                 : large_kernel                        ? "locon"
                                                       : "lora");
  }
  for (const absl::string_view format : {"dora", "lokr", "loha", "locon", "lora"}) {
    if (found.count(format) > 0) {
      return std::string(format);
    }
  }
  return "full";
}

class AdapterParser {
 public:
  AdapterParser(const SafetensorsFile& file, const KeyMap& keys, const ModuleTable& table)
      : file_(file), keys_(keys), table_(table) {}

  absl::Status Parse(const AdapterFileOptions& options) {
    ABSL_RETURN_IF_ERROR(SortKeys());
    ABSL_RETURN_IF_ERROR(CheckUnmatched(options.allow_unmatched_keys));
    ABSL_RETURN_IF_ERROR(ReadPeftScaling(options));
    DeltaReader reader(file_, scaling_, faults_);
    for (const auto& [module, keys] : modules_) {
      ABSL_ASSIGN_OR_RETURN(std::optional<ParsedDelta> delta, reader.Read(module, table_.modules[module], keys));
      if (delta.has_value()) {
        deltas_.push_back(*std::move(delta));
      }
    }
    if (!faults_.invalid.empty()) {
      return Refuse("ADAPTER_INVALID", absl::StrCat("adapter is not sound: ", faults_.invalid.ToString()));
    }
    if (!faults_.mismatched.empty()) {
      return Refuse("ADAPTER_MISMATCH",
                    absl::StrCat("adapter does not fit this model: ", faults_.mismatched.ToString(), ForeignHint()));
    }
    return absl::OkStatus();
  }

  ParsedAdapter Take(SafetensorsFile file) && {
    ParsedAdapter adapter{std::move(file), std::move(deltas_)};
    std::set<std::string> targets;
    for (const ParsedDelta& delta : adapter.deltas) {
      targets.insert(std::string(NameOf(table_.modules[delta.module].component)));
      adapter.rank_max = std::max(adapter.rank_max, static_cast<uint32_t>(delta.rank));
      for (const size_t tensor : delta.Tensors()) {
        adapter.tensor_bytes += LoadedBytes(adapter.file.tensors()[tensor]);
      }
    }
    adapter.format = FormatOf(adapter.deltas, table_);
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
      std::optional<size_t>& place = modules_[*module][split->part];
      if (place.has_value()) {
        faults_.invalid.AddPrintable(
            absl::StrCat(PrintableName(Tensor(*place).name), " and ", PrintableName(key), " mean the same"));
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
    return faults_.foreign_width == 0 ? ""
                                      : absl::StrCat("; a context of ", faults_.foreign_width,
                                                     " channels belongs to an adapter for Stable Diffusion ",
                                                     faults_.foreign_width == 768 ? 1 : 2);
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

  const SafetensorsFile& file_;
  const KeyMap& keys_;
  const ModuleTable& table_;
  PeftScaling scaling_;
  std::map<size_t, ModuleKeys> modules_;
  std::vector<size_t> unmatched_;
  std::vector<std::string> unmatched_keys_;
  std::vector<ParsedDelta> deltas_;
  DeltaFaults faults_;
};

}  // namespace

absl::StatusOr<ParsedAdapter> ParseAdapter(SafetensorsFile file, const KeyMap& keys, const ModuleTable& table,
                                           const AdapterFileOptions& options) {
  AdapterParser parser(file, keys, table);
  ABSL_RETURN_IF_ERROR(parser.Parse(options));
  return std::move(parser).Take(std::move(file));
}

}  // namespace hotlora
