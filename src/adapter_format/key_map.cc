#include "src/adapter_format/key_map.h"

#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/name_table.h"
#include "src/base/status_macros.h"
#include "src/weights/sgm_names.h"

namespace hotlora {
namespace {

constexpr std::pair<absl::string_view, absl::string_view> kOldTextNames[] = {
    {"q_proj", "to_q"}, {"k_proj", "to_k"}, {"v_proj", "to_v"}, {"out_proj", "to_out"}};

// The up blocks with attention, by their index.
std::set<std::string> UpBlocksWithAttention(const ModuleTable& table) {
  std::set<std::string> blocks;
  for (const AdaptableModule& module : table.modules) {
    const std::vector<absl::string_view> part = absl::StrSplit(module.path, '.');
    if (module.component == Component::kUnet && part.size() > 3 && part[0] == "up_blocks" && part[2] == "attentions") {
      blocks.insert(std::string(part[1]));
    }
  }
  return blocks;
}

std::string Under(absl::string_view path) { return absl::StrReplaceAll(path, {{".", "_"}}); }

void AddPeftPrefixes(absl::string_view component, absl::string_view path, std::vector<std::string>& spellings) {
  spellings.push_back(absl::StrCat(component, path));
  spellings.push_back(absl::StrCat("base_model.model.", component, path));
  spellings.push_back(absl::StrCat(component, "base_model.model.", path));
}

// kohya's name of a magnitude as diffusers' converter writes it: its last dot stays.
std::string UnderButLast(absl::string_view path) {
  const size_t last = path.rfind('.');
  return last == absl::string_view::npos ? std::string(path)
                                         : absl::StrCat(Under(path.substr(0, last)), path.substr(last));
}

std::vector<std::string> UnetSpellings(const std::string& path, const SgmUnetNames& sgm) {
  std::vector<std::string> dotted = {path};
  const size_t attention = path.find(".attn");
  const size_t leaf = attention == std::string::npos ? attention : path.find(".to_", attention);
  if (leaf != std::string::npos) {
    const absl::string_view head = absl::string_view(path).substr(0, leaf);
    const absl::string_view tail = absl::StripSuffix(absl::string_view(path).substr(leaf), ".0");
    dotted.push_back(absl::StrCat(head, ".processor", tail));
    if (const std::string short_name = absl::StrCat(head, tail); short_name != path) {
      dotted.push_back(short_name);
    }
  }
  std::vector<std::string> spellings;
  for (const std::string& name : dotted) {
    spellings.push_back(name);
    spellings.push_back(absl::StrCat("base_model.model.", name));
    AddPeftPrefixes("unet.", name, spellings);
  }
  spellings.push_back(absl::StrCat("diffusion_model.", path));
  std::set<std::string> underscored = {Under(path), UnderButLast(path)};
  if (const std::string name = sgm.OfModule(path); !name.empty()) {
    for (const char* const prefix : {"", "unet.", "diffusion_model.", "model.diffusion_model."}) {
      spellings.push_back(absl::StrCat(prefix, name));
    }
    underscored.insert(Under(name));
  }
  for (const std::string& name : underscored) {
    spellings.push_back(absl::StrCat("lora_unet_", name));
    spellings.push_back(absl::StrCat("lycoris_", name));
    spellings.push_back(absl::StrCat("oft_unet_", name));
  }
  return spellings;
}

// A text encoder's module, with and without the part that transformers 5 leaves out.
std::set<std::string> TextNames(const std::string& path) {
  return {path, std::string(absl::StripPrefix(path, "text_model."))};
}

// Spellings that leave it open which text encoder is meant.
std::vector<std::string> OpenTextSpellings(const std::string& path) {
  std::vector<std::string> spellings;
  for (const std::string& name : TextNames(path)) {
    spellings.push_back(name);
    spellings.push_back(absl::StrCat("base_model.model.", name));
    spellings.push_back(absl::StrCat("lycoris_", Under(name)));
  }
  return spellings;
}

// What torch.compile puts into the names of all modules.
std::string WithoutCompiled(absl::string_view spelling) {
  return absl::StrReplaceAll(spelling, {{"_orig_mod.", ""}, {"_orig_mod_", ""}});
}

std::vector<std::string> TextSpellings(const std::string& path, Component component) {
  const bool first = component == Component::kTextEncoder;
  std::vector<std::string> spellings;
  for (const std::string& name : TextNames(path)) {
    for (const std::string& under : std::set<std::string>{Under(name), UnderButLast(name)}) {
      if (first) {
        spellings.push_back(absl::StrCat("lora_te_", under));
      }
      spellings.push_back(absl::StrCat(first ? "lora_te1_" : "lora_te2_", under));
    }
    spellings.push_back(absl::StrCat(first ? "clip_l." : "clip_g.", name));
    spellings.push_back(absl::StrCat("text_encoders.", first ? "clip_l" : "clip_g", ".transformer.", name));

    const absl::string_view prefix = first ? "text_encoder." : "text_encoder_2.";
    AddPeftPrefixes(prefix, name, spellings);
    const size_t leaf = name.rfind('.') + 1;
    const absl::string_view old = Translate(kOldTextNames, absl::string_view(name).substr(leaf));
    if (!old.empty() && absl::StrContains(name, "self_attn.")) {
      AddPeftPrefixes(prefix, absl::StrCat(name.substr(0, leaf), old), spellings);
    }
  }
  return spellings;
}

}  // namespace

absl::StatusOr<KeyMap> KeyMap::Build(const ModuleTable& table) {
  KeyMap map;
  const SgmUnetNames sgm(table.unet_layers_per_block, UpBlocksWithAttention(table));
  for (size_t index = 0; index < table.modules.size(); ++index) {
    const AdaptableModule& module = table.modules[index];
    if (module.is_bias) {
      continue;
    }
    for (std::string& spelling : module.component == Component::kUnet ? UnetSpellings(module.path, sgm)
                                                                      : TextSpellings(module.path, module.component)) {
      const auto [entry, inserted] = map.modules_.try_emplace(std::move(spelling), index);
      if (!inserted && entry->second != index) {
        return MakeError(absl::StatusCode::kFailedPrecondition, error_reason::kModelInvalid,
                         absl::StrCat("adapter key \"", entry->first, "\" would mean two modules: \"",
                                      table.modules[entry->second].path, "\" and \"", module.path, "\""));
      }
    }
    if (module.component != Component::kUnet) {
      for (std::string& spelling : OpenTextSpellings(module.path)) {
        map.open_text_.insert(std::move(spelling));
      }
    }
  }
  return map;
}

std::optional<size_t> KeyMap::Find(absl::string_view spelling) const {
  auto entry = modules_.find(spelling);
  if (entry == modules_.end() && absl::StrContains(spelling, "_orig_mod")) {
    entry = modules_.find(WithoutCompiled(spelling));
  }
  return entry == modules_.end() ? std::nullopt : std::optional<size_t>(entry->second);
}

bool KeyMap::LeavesTextEncoderOpen(absl::string_view spelling) const {
  return open_text_.contains(spelling) ||
         (absl::StrContains(spelling, "_orig_mod") && open_text_.contains(WithoutCompiled(spelling)));
}

}  // namespace hotlora
