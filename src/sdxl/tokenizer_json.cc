#include "src/sdxl/tokenizer_json.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "src/base/json_text.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxId = 1 << 20;

absl::Status Fault(absl::string_view key, const Json& value, absl::string_view wanted) {
  return absl::FailedPreconditionError(
      absl::StrCat("is not CLIP's: ", key, " is ", JsonExcerpt(value), ", must be ", wanted));
}

// The member, or null.
const Json& At(const Json& object, const char* key) {
  static const auto* const kNull = new Json();
  if (!object.is_object()) {
    return *kNull;
  }
  const auto found = object.find(key);
  return found == object.end() ? *kNull : *found;
}

// The key must be absent, null, or one of `harmless`.
absl::Status Only(const Json& object, const std::string& where, const char* key, const std::vector<Json>& harmless) {
  const Json& value = At(object, key);
  if (value.is_null() || std::find(harmless.begin(), harmless.end(), value) != harmless.end()) {
    return absl::OkStatus();
  }
  return Fault(absl::StrCat(where, ".", key), value, harmless.front().dump());
}

absl::Status CheckModel(const Json& model) {
  if (At(model, "type") != "BPE") {
    return Fault("model.type", At(model, "type"), "\"BPE\"");
  }
  if (At(model, "end_of_word_suffix") != "</w>") {
    return Fault("model.end_of_word_suffix", At(model, "end_of_word_suffix"), "\"</w>\"");
  }
  ABSL_RETURN_IF_ERROR(Only(model, "model", "dropout", {0.0}));
  ABSL_RETURN_IF_ERROR(Only(model, "model", "continuing_subword_prefix", {""}));
  ABSL_RETURN_IF_ERROR(Only(model, "model", "byte_fallback", {false}));
  ABSL_RETURN_IF_ERROR(Only(model, "model", "ignore_merges", {false}));
  if (!At(model, "vocab").is_object()) {
    return Fault("model.vocab", At(model, "vocab"), "an object");
  }
  if (!At(model, "merges").is_array()) {
    return Fault("model.merges", At(model, "merges"), "an array");
  }
  return absl::OkStatus();
}

// NFC, then lower case. Any white space may become a space before or after: it only separates pieces.
absl::Status CheckNormalizer(const Json& normalizer) {
  constexpr char kWanted[] = "NFC, then Lowercase";
  std::vector<std::string> steps;
  const Json& list = At(normalizer, "normalizers");
  if (At(normalizer, "type") != "Sequence" || !list.is_array()) {
    return Fault("normalizer", normalizer, kWanted);
  }
  for (const Json& step : list) {
    if (At(step, "type") == "Replace" && At(At(step, "pattern"), "Regex") == "\\s+" && At(step, "content") == " ") {
      continue;
    }
    steps.push_back(At(step, "type").is_string() ? At(step, "type").get<std::string>() : "");
  }
  return steps == std::vector<std::string>{"NFC", "Lowercase"} ? absl::OkStatus()
                                                               : Fault("normalizer", normalizer, kWanted);
}

// CLIP's pieces, then bytes. transformers 5 names the special tokens first, earlier versions do not.
absl::Status CheckPreTokenizer(const Json& pre_tokenizer) {
  constexpr char kWanted[] = "CLIP's Split, then ByteLevel";
  constexpr char kPieces[] = R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  constexpr char kSpecial[] = R"(<\|startoftext\|>|<\|endoftext\|>|)";
  const Json& list = At(pre_tokenizer, "pretokenizers");
  if (At(pre_tokenizer, "type") != "Sequence" || !list.is_array() || list.size() != 2) {
    return Fault("pre_tokenizer", pre_tokenizer, kWanted);
  }
  const Json& split = list[0];
  const Json& pattern = At(At(split, "pattern"), "Regex");
  absl::string_view pieces = pattern.is_string() ? absl::string_view(pattern.get_ref<const std::string&>()) : "";
  absl::ConsumePrefix(&pieces, kSpecial);
  if (At(split, "type") != "Split" || pieces != kPieces || At(split, "behavior") != "Removed" ||
      At(split, "invert") != true) {
    return Fault("pre_tokenizer.pretokenizers[0]", split, "a Split by CLIP's pattern");
  }
  if (At(list[1], "type") != "ByteLevel" || At(list[1], "add_prefix_space") != false) {
    return Fault("pre_tokenizer.pretokenizers[1]", list[1], "ByteLevel without add_prefix_space");
  }
  return absl::OkStatus();
}

bool IsSpecial(const Json& step, const Json& template_tokens, int32_t id) {
  const Json& name = At(At(step, "SpecialToken"), "id");
  return name.is_string() && At(At(template_tokens, name.get_ref<const std::string&>().c_str()), "ids") == Json{id};
}

}  // namespace

absl::Status CheckIsClip(const Json& tokenizer) {
  ABSL_RETURN_IF_ERROR(CheckModel(At(tokenizer, "model")));
  ABSL_RETURN_IF_ERROR(CheckNormalizer(At(tokenizer, "normalizer")));
  return CheckPreTokenizer(At(tokenizer, "pre_tokenizer"));
}

absl::Status CheckFrame(const Json& tokenizer, int32_t begin_id, int32_t end_id) {
  const Json& processor = At(tokenizer, "post_processor");
  const auto has_id = [&processor](const char* key, int32_t id) {
    const Json& pair = At(processor, key);
    return pair.is_array() && pair.size() == 2 && pair[1] == id;
  };
  if (At(processor, "type") == "RobertaProcessing" && has_id("cls", begin_id) && has_id("sep", end_id)) {
    return absl::OkStatus();
  }
  const Json& single = At(processor, "single");
  const Json& tokens = At(processor, "special_tokens");
  if (At(processor, "type") == "TemplateProcessing" && single.is_array() && single.size() == 3 &&
      IsSpecial(single[0], tokens, begin_id) && single[1].contains("Sequence") &&
      IsSpecial(single[2], tokens, end_id)) {
    return absl::OkStatus();
  }
  return Fault("post_processor", processor,
               absl::StrCat("one that puts the ids ", begin_id, " and ", end_id, " around the text"));
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(absl::string_view key, const Json& tokens) {
  std::vector<AddedToken> read;
  if (tokens.is_null()) {
    return read;
  }
  if (!tokens.is_array()) {
    return Fault(key, tokens, "a list of added tokens");
  }
  for (const Json& token : tokens) {
    const Json& text = At(token, "content");
    const Json& id = At(token, "id");
    const bool has_text = text.is_string() && !text.get_ref<const std::string&>().empty() && !IsPythonNumber(text);
    if (!has_text || !id.is_number_integer() || id < 0 || id > kMaxId) {
      return Fault(key, token, "an object with a text \"content\" and an \"id\"");
    }
    for (const char* const flag : {"single_word", "lstrip", "rstrip"}) {
      ABSL_RETURN_IF_ERROR(
          Only(token, absl::StrCat(key, ": \"", text.get_ref<const std::string&>(), "\""), flag, {false}));
    }
    read.push_back({text.get<std::string>(), id.get<int32_t>(), At(token, "normalized") == true});
  }
  return read;
}

}  // namespace hotlora
