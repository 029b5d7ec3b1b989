#include "src/sdxl/clip_tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include <nlohmann/json.hpp>

#include "src/base/bounded_read.h"
#include "src/base/json_text.h"
#include "src/base/status_macros.h"
#include "src/sdxl/clip_vocabulary.h"
#include "src/sdxl/tokenizer_json.h"
#include "src/weights/tokenizer_files.h"

namespace hotlora {
namespace {

using Json = nlohmann::json;
using Vocabulary = absl::flat_hash_map<std::string, int32_t>;

constexpr size_t kMaxFileBytes = 32 << 20;  // CLIP's tokenizer.json has 4 MB
constexpr size_t kMaxVocabulary = 1 << 20;
using tokenizer_file::kAddedTokens;
using tokenizer_file::kMerges;
using tokenizer_file::kSpecialTokens;
using tokenizer_file::kTokenizerConfig;
using tokenizer_file::kVocabulary;
using tokenizer_file::kWhole;

absl::Status Fault(absl::string_view name, absl::string_view what) {
  return absl::FailedPreconditionError(absl::StrCat(name, " ", what));
}

// nullopt if there is no such file.
absl::StatusOr<std::optional<std::string>> ReadText(const std::string& folder, const std::string& name) {
  const std::string path = absl::StrCat(folder, "/", name);
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return std::nullopt;
  }
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxFileBytes);
  if (!text.ok()) {
    return Fault(name, text.status().message());
  }
  return *std::move(text);
}

absl::StatusOr<Json> ParseObject(const std::string& name, const std::string& text) {
  auto json = ParseJsonObject(text);
  if (!json.ok()) {
    return Fault(name, json.status().message());
  }
  return json;
}

// An empty object if there is no such file.
absl::StatusOr<Json> ParseIfThere(const TextByName& texts, const char* name) {
  const auto found = texts.find(name);
  if (found == texts.end()) {
    return Json::object();
  }
  return ParseObject(name, found->second);
}

// Gathers the parts in the order in which they depend on one another: vocabulary, added tokens, special tokens, merges.
class Builder {
 public:
  explicit Builder(absl::string_view vocabulary_file) { files_.vocabulary_file = std::string(vocabulary_file); }

  absl::Status AddVocabulary(const Json& json) {
    std::vector<bool> taken(json.size());
    for (const auto& [token, id] : json.items()) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() >= json.size() || taken[id.get<size_t>()]) {
        return Fault(files_.vocabulary_file, absl::StrCat("has ids that are not 0 to ", json.size() - 1, " once each: ",
                                                          token.substr(0, 40), " is ", JsonExcerpt(id)));
      }
      taken[id.get<size_t>()] = true;
      files_.vocabulary.emplace(token, id.get<int32_t>());
    }
    return absl::OkStatus();
  }

  // `tokens` as the file has them, in any order.
  absl::Status AddTokens(absl::string_view file, std::vector<AddedToken> tokens) {
    std::sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
    for (AddedToken& token : tokens) {
      const auto next = static_cast<int32_t>(files_.vocabulary.size());
      const auto [known, is_new] = files_.vocabulary.emplace(token.text, next);
      if (token.text.empty() || known->second != token.id || files_.vocabulary.size() > kMaxVocabulary) {
        return Fault(file, absl::StrCat("gives the added token \"", token.text.substr(0, 40), "\" the id ", token.id,
                                        "; the vocabulary has ", known->second));
      }
      added_.push_back(std::move(token));
    }
    return absl::OkStatus();
  }

  // The first of `files` that has a key says what the token is. With null it does not say so.
  absl::Status SetSpecialTokens(const std::vector<std::pair<const char*, const Json*>>& files) {
    const std::tuple<const char*, absl::string_view, int32_t*> tokens[] = {{"bos_token", kClipBegin, &files_.begin_id},
                                                                           {"eos_token", kClipEnd, &files_.end_id},
                                                                           {"pad_token", kClipEnd, &files_.pad_id}};
    for (const auto& [key, default_text, id] : tokens) {
      std::string text(default_text);
      for (const auto& [name, json] : files) {
        const auto found = json->find(key);
        if (found == json->end() || found->is_null()) {
          continue;
        }
        // Some files have an object with the text inside.
        const Json value = found->is_object() ? found->value("content", Json()) : *found;
        if (!value.is_string() || value.get_ref<const std::string&>().empty() || IsPythonNumber(value)) {
          return Fault(name, absl::StrCat("has no text for ", key, ": it is ", JsonExcerpt(*found)));
        }
        text = value.get<std::string>();
        break;
      }
      const auto found = files_.vocabulary.find(text);
      if (found == files_.vocabulary.end()) {
        return Fault(files_.vocabulary_file, absl::StrCat("lacks the ", key, " \"", text.substr(0, 40), "\""));
      }
      *id = found->second;
      files_.added.push_back({text, found->second, false});
    }
    return absl::OkStatus();
  }

  // `place` is where messages say that the merge is, such as "line 3".
  absl::Status AddMerge(const char* file, absl::string_view place, const std::string& left, const std::string& right) {
    const auto first = files_.vocabulary.find(left);
    const auto second = files_.vocabulary.find(right);
    const auto merged = files_.vocabulary.find(left + right);
    const auto end = files_.vocabulary.end();
    if (first == end || second == end || merged == end) {
      return Fault(file, absl::StrCat(place, " merges what ", files_.vocabulary_file, " lacks: ", left.substr(0, 40),
                                      " ", right.substr(0, 40)));
    }
    files_.merges.push_back({first->second, second->second, merged->second});
    return absl::OkStatus();
  }

  int32_t begin_id() const { return files_.begin_id; }
  int32_t end_id() const { return files_.end_id; }

  ClipTokenizerFiles Take() && {
    for (AddedToken& token : added_) {
      const auto known = std::find_if(files_.added.begin(), files_.added.end(),
                                      [&token](const AddedToken& other) { return other.id == token.id; });
      if (known == files_.added.end()) {
        files_.added.push_back(std::move(token));
      }
    }
    return std::move(files_);
  }

 private:
  ClipTokenizerFiles files_;
  std::vector<AddedToken> added_;
};

absl::Status AddMergesText(const std::string& text, Builder& builder) {
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    absl::ConsumeSuffix(&line, "\r");
    if (line.empty() || absl::StartsWith(line, "#version")) {
      continue;
    }
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    if (parts.size() != 2) {
      return Fault(kMerges, absl::StrCat("line ", line_number, " is not two tokens"));
    }
    ABSL_RETURN_IF_ERROR(builder.AddMerge(kMerges, absl::StrCat("line ", line_number), parts[0], parts[1]));
  }
  return absl::OkStatus();
}

absl::Status AddMergesJson(const Json& merges, Builder& builder) {
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string place = absl::StrCat("model.merges[", i, "]");
    const Json& merge = merges[i];
    std::vector<std::string> parts;
    if (merge.is_string()) {
      parts = absl::StrSplit(merge.get_ref<const std::string&>(), ' ');
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      parts = {merge[0].get<std::string>(), merge[1].get<std::string>()};
    }
    if (parts.size() != 2) {
      return Fault(kWhole, absl::StrCat(place, " is ", JsonExcerpt(merge), ", not two tokens"));
    }
    ABSL_RETURN_IF_ERROR(builder.AddMerge(kWhole, place, parts[0], parts[1]));
  }
  return absl::OkStatus();
}

// What the files beside the vocabulary say of added tokens.
absl::Status AddTokensBeside(const Json& config, const Json& added, Builder& builder) {
  std::vector<AddedToken> tokens;
  for (const auto& [text, id] : added.items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kMaxVocabulary) {
      return Fault(kAddedTokens, absl::StrCat("gives \"", text.substr(0, 40), "\" the id ", JsonExcerpt(id)));
    }
    tokens.push_back({text, id.get<int32_t>(), true});
  }
  ABSL_RETURN_IF_ERROR(builder.AddTokens(kAddedTokens, std::move(tokens)));
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || decoder->is_null()) {
    return absl::OkStatus();
  }
  Json list = Json::array();  // as tokenizer.json has it
  if (decoder->is_object()) {
    for (const auto& [id, token] : decoder->items()) {
      int32_t number = 0;
      list.push_back(token);
      if (list.back().is_object() && absl::SimpleAtoi(id, &number)) {
        list.back()["id"] = number;
      }
    }
  }
  auto decoded = ReadAddedTokens("added_tokens_decoder", decoder->is_object() ? list : *decoder);
  if (!decoded.ok()) {
    return Fault(kTokenizerConfig, decoded.status().message());
  }
  return builder.AddTokens(kTokenizerConfig, *std::move(decoded));
}

absl::StatusOr<ClipTokenizerFiles> BuildFromTwo(const std::string& vocabulary, const std::string& merges,
                                                const Json& special, const Json& config, const Json& added) {
  Builder builder(kVocabulary);
  ABSL_ASSIGN_OR_RETURN(const Json tokens, ParseObject(kVocabulary, vocabulary));
  ABSL_RETURN_IF_ERROR(builder.AddVocabulary(tokens));
  ABSL_RETURN_IF_ERROR(AddTokensBeside(config, added, builder));
  ABSL_RETURN_IF_ERROR(builder.SetSpecialTokens({{kSpecialTokens, &special}, {kTokenizerConfig, &config}}));
  ABSL_RETURN_IF_ERROR(AddMergesText(merges, builder));
  return std::move(builder).Take();
}

absl::StatusOr<ClipTokenizerFiles> BuildFromOne(const std::string& text, const Json& special, const Json& config,
                                                const Json& added) {
  ABSL_ASSIGN_OR_RETURN(const Json json, ParseObject(kWhole, text));
  if (const absl::Status status = CheckIsClip(json); !status.ok()) {
    return Fault(kWhole, status.message());
  }
  Builder builder(kWhole);
  ABSL_RETURN_IF_ERROR(builder.AddVocabulary(json["model"]["vocab"]));
  auto tokens = ReadAddedTokens("added_tokens", json.value("added_tokens", Json()));
  if (!tokens.ok()) {
    return Fault(kWhole, tokens.status().message());
  }
  ABSL_RETURN_IF_ERROR(builder.AddTokens(kWhole, *std::move(tokens)));
  ABSL_RETURN_IF_ERROR(AddTokensBeside(config, added, builder));
  Json padding = json.value("padding", Json());
  padding = padding.is_object() ? padding : Json::object();
  ABSL_RETURN_IF_ERROR(
      builder.SetSpecialTokens({{kSpecialTokens, &special}, {kTokenizerConfig, &config}, {kWhole, &padding}}));
  if (const absl::Status status = CheckFrame(json, builder.begin_id(), builder.end_id()); !status.ok()) {
    return Fault(kWhole, status.message());
  }
  ABSL_RETURN_IF_ERROR(AddMergesJson(json["model"]["merges"], builder));
  return std::move(builder).Take();
}

}  // namespace

absl::StatusOr<ClipTokenizerFiles> ReadClipTokenizerFiles(const std::string& folder) {
  TextByName texts;
  for (const char* const name : tokenizer_file::kAll) {
    ABSL_ASSIGN_OR_RETURN(std::optional<std::string> text, ReadText(folder, name));
    if (text.has_value()) {
      texts[name] = *std::move(text);
    }
  }
  return ParseClipTokenizerFiles(texts);
}

absl::StatusOr<ClipTokenizerFiles> ParseClipTokenizerFiles(const TextByName& texts) {
  ABSL_ASSIGN_OR_RETURN(const Json special, ParseIfThere(texts, kSpecialTokens));
  ABSL_ASSIGN_OR_RETURN(const Json config, ParseIfThere(texts, kTokenizerConfig));
  ABSL_ASSIGN_OR_RETURN(const Json added, ParseIfThere(texts, kAddedTokens));
  const auto vocabulary = texts.find(kVocabulary);
  const auto merges = texts.find(kMerges);
  const auto whole = texts.find(kWhole);
  if (vocabulary != texts.end() && merges != texts.end()) {
    return BuildFromTwo(vocabulary->second, merges->second, special, config, added);
  }
  if (whole == texts.end()) {
    return Fault(vocabulary == texts.end() ? kVocabulary : kMerges, "is missing, and tokenizer.json too");
  }
  return BuildFromOne(whole->second, special, config, added);
}

absl::StatusOr<ClipTokenizerFiles> OwnClipTokenizerFiles(absl::string_view pad_token) {
  return BuildFromTwo(std::string(ClipVocabularyJson()), std::string(ClipMergesText()),
                      Json{{"pad_token", std::string(pad_token)}}, Json::object(), Json::object());
}

}  // namespace hotlora
