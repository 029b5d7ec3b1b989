#include "src/adapter_format/adapter_file.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "src/adapter_format/adapter_metadata.h"
#include "src/adapter_format/key_suffix.h"
#include "src/adapter_format/peft_scaling.h"
#include "src/adapter_format/stored_values.h"
#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/printable.h"
#include "src/base/sha256.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

absl::Status Refuse(absl::string_view reason, absl::string_view message) {
  return MakeError(absl::StatusCode::kFailedPrecondition, reason, message);
}

// Channels of the text that cross-attention reads in other models of the family; SDXL's has 2048.
constexpr std::pair<int64_t, absl::string_view> kContextWidths[] = {
    {768, "Stable Diffusion 1"}, {1024, "Stable Diffusion 2"}, {1280, "the SDXL refiner"}};

constexpr absl::string_view kFormats[] = {"dora", "oft", "glora", "lokr", "loha", "locon", "lora", "full", "norm"};

std::string FormatOf(absl::Span<const ParsedDelta> deltas, const ModuleTable& table) {
  std::set<absl::string_view> found;
  for (const ParsedDelta& delta : deltas) {
    const std::vector<int64_t>& shape = table.modules[delta.module].shape;
    const bool large_kernel = shape.size() == 4 && (shape[2] > 1 || shape[3] > 1);
    found.insert(delta.magnitude.has_value()             ? "dora"
                 : delta.form == DeltaForm::kRotation    ? "oft"
                 : delta.form == DeltaForm::kGeneralized ? "glora"
                 : delta.form == DeltaForm::kKronecker   ? "lokr"
                 : delta.form == DeltaForm::kHadamard    ? "loha"
                 : delta.form == DeltaForm::kFull        ? (shape.size() == 1 ? "norm" : "full")
                 : large_kernel                          ? "locon"
                                                         : "lora");
  }
  for (const absl::string_view format : kFormats) {
    if (found.count(format) > 0) {
      return std::string(format);
    }
  }
  return "";
}

// Bytes of the float32 blocks that OFT's tensor becomes.
uint64_t RotationBytes(const ParsedDelta& delta, const StoredTensor& stored) {
  const int64_t size = OftBlockSize(stored.shape[1]);
  return sizeof(float) * (delta.peft_oft.has_value() ? static_cast<uint64_t>(stored.shape[0] * size * size)
                                                     : stored.bytes() / SizeOf(stored.dtype));
}

class AdapterParser {
 public:
  AdapterParser(const SafetensorsFile& file, const KeyMap& keys, const ModuleTable& table)
      : file_(file), keys_(keys), table_(table) {}

  absl::Status Parse(const AdapterFileOptions& options) {
    ABSL_RETURN_IF_ERROR(SortKeys());
    ABSL_RETURN_IF_ERROR(CheckUnmatched(options.allow_unmatched_keys));
    ABSL_RETURN_IF_ERROR(ReadMetadata(options));
    DeltaReader reader(file_, scaling_, faults_);
    deltas_.reserve(modules_.size());
    for (const auto& [module, keys] : modules_) {
      ABSL_RETURN_IF_ERROR(reader.Read(table_, module, keys, deltas_));
    }
    std::sort(deltas_.begin(), deltas_.end(),
              [](const ParsedDelta& a, const ParsedDelta& b) { return a.module < b.module; });
    if (!faults_.invalid.empty()) {
      return Refuse(error_reason::kAdapterInvalid, absl::StrCat("adapter is not sound: ", faults_.invalid.ToString()));
    }
    if (!faults_.mismatched.empty()) {
      return Refuse(error_reason::kAdapterMismatch,
                    absl::StrCat(MisfitOr("adapter does not fit this model"), ": ", faults_.mismatched.ToString()));
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
        const StoredTensor& stored = adapter.file.tensors()[tensor];
        const bool becomes_rotation = delta.form == DeltaForm::kRotation && tensor == delta.first.whole;
        adapter.tensor_bytes += becomes_rotation ? RotationBytes(delta, stored) : LoadedBytes(stored);
      }
    }
    adapter.matched_modules = static_cast<uint32_t>(modules_.size());
    adapter.format = FormatOf(adapter.deltas, table_);
    adapter.targets.assign(targets.begin(), targets.end());
    adapter.unmatched_keys = std::move(unmatched_keys_);
    if (const std::string model = ForeignModelOfHeader(adapter.file.metadata()); !model.empty()) {
      adapter.notes.push_back(
          absl::StrCat("its metadata say that it is for ", model, "; its keys and shapes fit this model"));
    }
    adapter.metadata = std::move(metadata_);
    return adapter;
  }

 private:
  const StoredTensor& Tensor(size_t index) const { return file_.tensors()[index]; }

  // Says which tensor belongs to which module, and which to none.
  absl::Status SortKeys() {
    std::map<absl::string_view, NameSample> unsupported;
    for (size_t i = 0; i < file_.tensors().size(); ++i) {
      const std::string& key = Tensor(i).name;
      if (absl::EndsWith(key, ".oft_blocks") && Tensor(i).shape.size() == 4) {
        unsupported["BOFT"].Add(key);
        continue;
      }
      if (IsEmbeddingKey(key)) {
        embedding_.Add(key);
        unmatched_.push_back(i);
        continue;
      }
      const std::optional<SplitKey> split = SplitAdapterKey(key);
      const std::optional<size_t> module = split ? keys_.Find(split->module) : std::nullopt;
      if (!module.has_value()) {
        if (split.has_value() && keys_.LeavesTextEncoderOpen(split->module)) {
          open_text_.Add(key);
        }
        if (const absl::string_view format = UnsupportedFormatOf(key); !format.empty()) {
          unsupported[format].Add(key);
        } else {
          unmatched_.push_back(i);
        }
        continue;
      }
      if (!split->adapter.empty()) {
        adapter_names_.insert(split->adapter);
      }
      std::optional<size_t>& tensor = modules_[*module][split->part];
      if (tensor.has_value() && adapter_names_.size() < 2) {
        faults_.invalid.AddPrintable(
            absl::StrCat(PrintableName(Tensor(*tensor).name), " and ", PrintableName(key), " mean the same"));
      }
      tensor = i;
    }
    if (adapter_names_.size() > 1) {
      NameSample names;
      for (const absl::string_view name : adapter_names_) {
        names.Add(name);
      }
      return Refuse(error_reason::kAdapterInvalid,
                    absl::StrCat("file holds several adapters, by the names in its keys: ", names.ToString(),
                                 "; save each in a file of its own"));
    }
    if (!unsupported.empty()) {
      std::vector<std::string> formats;
      for (const auto& [format, sample] : unsupported) {
        formats.push_back(absl::StrCat(format, " (", sample.ToString(), ")"));
      }
      return Refuse(error_reason::kAdapterUnsupported,
                    absl::StrCat("adapter format is not supported: ", absl::StrJoin(formats, "; ")));
    }
    return absl::OkStatus();
  }

  // "adapter is for X, not for SDXL" if keys, shapes or metadata tell, else `otherwise`.
  std::string MisfitOr(absl::string_view otherwise) const {
    std::string model = ModelOfContext();
    for (auto index = unmatched_.begin(); index != unmatched_.end() && model.empty(); ++index) {
      model = std::string(ForeignModelOfKey(Tensor(*index).name));
    }
    if (model.empty()) {
      model = ForeignModelOfHeader(file_.metadata());
    }
    return model.empty() ? std::string(otherwise) : absl::StrCat("adapter is for ", model, ", not for SDXL");
  }

  // Told by the width of the text that cross-attention reads, if it is not this model's.
  std::string ModelOfContext() const {
    for (const auto& [module, keys] : modules_) {
      const AdaptableModule& to_k = table_.modules[module];
      if (!absl::EndsWith(to_k.path, ".attn2.to_k")) {
        continue;
      }
      for (const KeyPart part : {KeyPart::kDown, KeyPart::kHadaW1B, KeyPart::kDiff}) {
        const int64_t width = keys[part].has_value() && Tensor(*keys[part]).shape.size() >= 2
                                  ? Tensor(*keys[part]).shape[1]
                                  : to_k.shape[1];
        for (const auto& [foreign, model] : kContextWidths) {
          if (width == foreign && width != to_k.shape[1]) {
            return absl::StrCat(model, " (whose text has ", width, " channels)");
          }
        }
      }
    }
    return "";
  }

  // Keys of modules that this model lacks may be passed over if they are allowed, unless they are another model's
  // and no key is of the UNet: the text encoders are also those of other models.
  bool MayPassOver() const {
    return std::any_of(
               modules_.begin(), modules_.end(),
               [this](const auto& entry) { return table_.modules[entry.first].component == Component::kUnet; }) ||
           (!modules_.empty() &&
            (unmatched_.size() == embedding_.count() || ForeignModelOfHeader(file_.metadata()).empty()) &&
            std::all_of(unmatched_.begin(), unmatched_.end(),
                        [this](size_t index) { return ForeignModelOfKey(Tensor(index).name).empty(); }));
  }

  absl::Status CheckUnmatched(bool allowed) {
    if (file_.tensors().empty()) {
      return Refuse(error_reason::kAdapterInvalid, "adapter has no tensors");
    }
    if (unmatched_.empty() || (allowed && MayPassOver())) {
      for (const size_t index : unmatched_) {
        if (unmatched_keys_.size() == kMaxListedKeys) {
          unmatched_keys_.push_back(absl::StrCat("and ", unmatched_.size() - kMaxListedKeys, " more"));
          break;
        }
        unmatched_keys_.push_back(Shortened(Tensor(index).name, AdapterMetadata::kMaxTextBytes));
      }
      return absl::OkStatus();
    }
    return RefuseUnmatched();
  }

  absl::Status RefuseUnmatched() const {
    if (unmatched_.size() == embedding_.count()) {
      return Refuse(error_reason::kAdapterUnsupported,
                    modules_.empty()
                        ? absl::StrCat("file holds an embedding and no adapter (", embedding_.ToString(),
                                       "); embeddings are served from the folder of --embeddings")
                        : absl::StrCat("adapter comes with an embedding, which is not served (", embedding_.ToString(),
                                       "); a server with --allow-unmatched-keys serves the rest"));
    }
    if (!open_text_.empty()) {
      return Refuse(error_reason::kAdapterMismatch,
                    absl::StrCat("keys do not say which text encoder they are for (", open_text_.ToString(),
                                 "); save the UNet's part and the text encoders' as one file, in which keys begin with "
                                 "\"unet.\", \"text_encoder.\" or \"text_encoder_2.\", as diffusers' "
                                 "save_lora_weights does"));
    }
    NameSample sample;
    for (const size_t index : unmatched_) {
      sample.Add(Tensor(index).name);
    }
    return Refuse(error_reason::kAdapterMismatch,
                  absl::StrCat(MisfitOr("adapter does not fit this model"),
                               modules_.empty() ? ": it has no key that names a module of this model: "
                                                : ": it has keys of modules that this model lacks: ",
                               sample.ToString()));
  }

  absl::Status ReadMetadata(const AdapterFileOptions& options) {
    metadata_ = ReadAdapterMetadata(file_.metadata(), options.peft_config.value_or(""));
    const auto metadata = file_.metadata().find("lora_adapter_metadata");
    if (options.peft_config.has_value()) {
      ABSL_ASSIGN_OR_RETURN(scaling_, PeftScaling::FromConfig(*options.peft_config));
    } else if (metadata != file_.metadata().end()) {
      ABSL_ASSIGN_OR_RETURN(scaling_, PeftScaling::FromMetadata(metadata->second));
      const bool has_alpha = std::any_of(modules_.begin(), modules_.end(),
                                         [](const auto& entry) { return entry.second[KeyPart::kAlpha].has_value(); });
      if (scaling_.is_shared() && has_alpha) {
        scaling_ = PeftScaling();
      }
    }
    return absl::OkStatus();
  }

  const SafetensorsFile& file_;
  const KeyMap& keys_;
  const ModuleTable& table_;
  PeftScaling scaling_;
  AdapterMetadata metadata_;
  std::map<size_t, ModuleKeys> modules_;
  std::set<absl::string_view> adapter_names_;  // of PEFT, inside keys
  std::vector<size_t> unmatched_;              // of no module, an embedding's among them
  NameSample embedding_;                       // of those, keys of an embedding
  NameSample open_text_;                       // of those, keys that do not say which text encoder they are for
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

std::string ContentHash(const SafetensorsFile& file, const std::optional<std::string>& peft_config) {
  if (!peft_config.has_value()) {
    return file.sha256();
  }
  const std::string of_file = file.sha256();
  Sha256 hash;
  hash.Update(of_file.data(), of_file.size());
  hash.Update(peft_config->data(), peft_config->size());
  return hash.HexDigest();
}

}  // namespace hotlora
