#include "src/sdxl/clip_tokenizer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/golden_path.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<ClipTokenizer> Load(const std::string& name) {
  auto tokenizer = ClipTokenizer::Load(GoldenPath("pipeline/" + name));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(ClipTokenizerTest, EqualsTheReferenceOnEveryPrompt) {
  for (const char* name : {"tokenizer", "tokenizer_2"}) {
    const std::unique_ptr<ClipTokenizer> tokenizer = Load(name);
    std::ifstream stream(GoldenPath("tokenizer/cases.jsonl"));
    int count = 0;
    for (std::string line; std::getline(stream, line); ++count) {
      const nlohmann::json one = nlohmann::json::parse(line);
      const std::string text = one["text"];
      EXPECT_EQ(tokenizer->Encode(text).value(), one[name]["ids"].get<std::vector<int64_t>>()) << name << ": " << text;
      EXPECT_EQ(tokenizer->EncodePaddedForTest(text).value(), one[name]["ids_77"].get<std::vector<int64_t>>())
          << name << ": " << text;
    }
    EXPECT_EQ(count, 294);
  }
}

TEST(ClipTokenizerTest, KnowsItsSpecialTokens) {
  const auto first = Load("tokenizer");
  const auto second = Load("tokenizer_2");
  EXPECT_EQ(first->vocabulary_size(), 49408u);
  EXPECT_EQ(first->begin_id(), 49406);
  EXPECT_EQ(first->end_id(), 49407);
  EXPECT_EQ(first->pad_id(), 49407);
  EXPECT_EQ(second->pad_id(), 0);
}

// As the reference (transformers 5, tokenizers 0.23) does it.
TEST(ClipTokenizerTest, LowerCaseMakesNoSpecialToken) {
  const auto tokenizer = Load("tokenizer");
  EXPECT_EQ(*tokenizer->Encode("<|ENDOFTEXT|>!!"), *tokenizer->Encode("<| endoftext |> !!"));
  EXPECT_NE(*tokenizer->Encode("<|ENDOFTEXT|>!!"), *tokenizer->Encode("<| endoftext |>!!"));
  EXPECT_EQ(*tokenizer->Encode("!<|ENDOFTEXT|>!!"), *tokenizer->Encode("!<| endoftext |>!!"));
  EXPECT_EQ(tokenizer->Encode("<|endoftext|>!!")->at(1), 49407);
}

TEST(ClipTokenizerTest, CutsLongPromptsAfter75Tokens) {
  const auto tokenizer = Load("tokenizer_2");
  std::string text;
  for (int i = 0; i < 75; ++i) {
    text += "a ";
  }
  const std::vector<int64_t> exact = *tokenizer->EncodePaddedForTest(text);
  EXPECT_EQ(exact, *tokenizer->Encode(text));
  EXPECT_EQ(*tokenizer->EncodePaddedForTest(text + "b b b"), exact);
  EXPECT_EQ(exact.size(), 77u);
}

TEST(ClipTokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Load("tokenizer");
  for (const char* text : {"\xff", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "<|endoftext|>\x80"}) {
    EXPECT_EQ(tokenizer->Encode(text).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(tokenizer->EncodePaddedForTest(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ClipTokenizerTest, TakesNulAndEveryAsciiByte) {
  const auto tokenizer = Load("tokenizer");
  EXPECT_EQ(tokenizer->Encode(absl::string_view("a\0b", 3))->size(), 5u);
  for (char c = 1; c > 0 && c < 127; ++c) {
    EXPECT_TRUE(tokenizer->Encode(std::string(1, c)).ok());
  }
}

// 16 KiB without a space: quadratic merging or reordering would show in the sanitizer runs' time
// limit.
TEST(ClipTokenizerTest, LongWordsAreExact) {
  const auto tokenizer = Load("tokenizer");
  const std::string word(16384, 'a');
  const std::vector<int64_t> ids = *tokenizer->Encode(word);
  // "aaaaaaaa" repeated: the middle of a long run is one token over and over.
  EXPECT_EQ(ids[100], ids[101]);
  std::string marks = "a";
  for (int i = 0; i < 4000; ++i) {
    marks += "\xcc\x81\xcc\xa3";  // acute above, dot below: out of canonical order
  }
  std::string ordered = "a";
  for (int i = 0; i < 4000; ++i) {
    ordered += "\xcc\xa3";
  }
  for (int i = 0; i < 4000; ++i) {
    ordered += "\xcc\x81";
  }
  EXPECT_EQ(*tokenizer->Encode(marks), *tokenizer->Encode(ordered));
}

// A copy of the golden tokenizer that a test may break.
class BrokenClipTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/tokenizer_", getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(GoldenPath("pipeline/tokenizer"), folder_, std::filesystem::copy_options::recursive);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(absl::StrCat(folder_, "/", name), std::ios::binary) << text;
  }

  nlohmann::json Vocabulary() {
    std::ifstream stream(folder_ + "/vocab.json");
    return nlohmann::json::parse(stream);
  }

  void ExpectFault(const std::string& what) {
    const auto tokenizer = ClipTokenizer::Load(folder_);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(tokenizer.status().message(), HasSubstr(what));
  }

  std::string folder_;
};

TEST_F(BrokenClipTokenizerTest, NamesFaultsOfTheVocabulary) {
  const nlohmann::json sound = Vocabulary();
  nlohmann::json broken = sound;
  broken["cat</w>"] = 0;
  Write("vocab.json", broken.dump());
  ExpectFault("once each");
  for (const nlohmann::json& id :
       {nlohmann::json(49408), nlohmann::json(-1), nlohmann::json(1.5), nlohmann::json("1")}) {
    broken["cat</w>"] = id;
    Write("vocab.json", broken.dump());
    ExpectFault("once each");
  }
  broken = sound;
  broken["no such token"] = broken["\u00ff</w>"];
  broken.erase("\u00ff</w>");
  Write("vocab.json", broken.dump());
  ExpectFault("vocab.json lacks byte 255");
  broken = sound;
  broken["no such token"] = broken["<|startoftext|>"];
  broken.erase("<|startoftext|>");
  Write("vocab.json", broken.dump());
  ExpectFault("lacks the bos_token");
  Write("vocab.json", "{\"a\":");
  ExpectFault("vocab.json is not JSON");
  std::filesystem::remove(folder_ + "/vocab.json");
  ExpectFault("vocab.json is missing");
}

TEST_F(BrokenClipTokenizerTest, NamesFaultsOfTheMerges) {
  Write("merges.txt", "#version: 0.2\ni n\nonly\n");
  ExpectFault("line 3 is not two tokens");
  Write("merges.txt", "i n\nqqq zzz\n");
  ExpectFault("line 2 merges what");
  std::filesystem::remove(folder_ + "/merges.txt");
  ExpectFault("merges.txt is missing");
}

TEST_F(BrokenClipTokenizerTest, ReadsSpecialTokensInEverySpelling) {
  Write("special_tokens_map.json", R"({"pad_token": {"content": "!", "lstrip": false}})");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 0);
  std::filesystem::remove(folder_ + "/special_tokens_map.json");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 49407);
  Write("tokenizer_config.json", R"({"pad_token": "!"})");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 0);
  std::filesystem::remove(folder_ + "/tokenizer_config.json");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 49407);
  Write("special_tokens_map.json", R"({"pad_token": ""})");
  ExpectFault("pad_token");
  Write("special_tokens_map.json", R"({"pad_token": 3})");
  ExpectFault("pad_token");
  Write("special_tokens_map.json", R"({"pad_token": "no such token"})");
  ExpectFault("lacks the pad_token");
  Write("special_tokens_map.json", "[]");
  ExpectFault("special_tokens_map.json is not a JSON object");
}

TEST_F(BrokenClipTokenizerTest, OddSpecialTokensAreNamed) {
  for (const char* const name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    for (const char* const key : {"bos_token", "eos_token", "pad_token"}) {
      for (const char* const odd :
           {"NaN", "-Infinity", "1e999", "3", "true", "\"\"", "[]", "{}", "{\"content\":\"NaN\"}"}) {
        std::filesystem::remove(folder_ + "/special_tokens_map.json");
        Write(name,
              absl::StrCat("{\"model_max_length\": 1e999, \"a key of next year\": NaN, \"", key, "\": ", odd, "}"));
        ExpectFault(absl::StrCat(name, " has no text for ", key, ": it is "));
      }
    }
    Write(name, "{\"model_max_length\": 1000000000000000019884624838656, \"a key of next year\": NaN}");
    EXPECT_TRUE(ClipTokenizer::Load(folder_).ok());
  }
}

TEST_F(BrokenClipTokenizerTest, ANullSpecialTokenIsSaidByTheNextFile) {
  Write("special_tokens_map.json", R"({"pad_token": null})");
  Write("tokenizer_config.json", R"({"pad_token": "!"})");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 0);
  Write("tokenizer_config.json", R"({"pad_token": null})");
  EXPECT_EQ(ClipTokenizer::Load(folder_).value()->pad_id(), 49407);
}

// Textual inversions that diffusers saved with a pipeline.
TEST_F(BrokenClipTokenizerTest, AddedTokensAreCutOut) {
  const auto plain = ClipTokenizer::Load(folder_).value();
  const std::vector<int64_t> cut = {49406, 320, 49408, 2368, 49407};  // a <s0> cat
  EXPECT_NE(*plain->Encode("a <s0> cat"), cut);
  Write("added_tokens.json", R"({"<s0>": 49408, "<s1>": 49409})");
  const auto added = ClipTokenizer::Load(folder_).value();
  EXPECT_EQ(added->vocabulary_size(), 49410u);
  EXPECT_EQ(*added->Encode("a <s0> cat"), cut);
  EXPECT_EQ(*added->Encode("a <S0>cat"), cut);
  std::filesystem::remove(folder_ + "/added_tokens.json");
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {
      "49407": {"content": "<|endoftext|>", "normalized": true, "special": true},
      "49408": {"content": "<s0>", "normalized": false, "special": true}}})");
  const auto decoder = ClipTokenizer::Load(folder_).value();
  EXPECT_EQ(*decoder->Encode("a <s0> cat"), cut);
  EXPECT_NE(*decoder->Encode("a <S0> cat"), cut);
  EXPECT_EQ(*decoder->Encode("<|ENDOFTEXT|>!!"), *plain->Encode("<|ENDOFTEXT|>!!"));
}

TEST_F(BrokenClipTokenizerTest, NamesFaultsOfAddedTokens) {
  Write("added_tokens.json", R"({"<s0>": 49409})");
  ExpectFault("added_tokens.json gives the added token \"<s0>\" the id 49409; the vocabulary has 49408");
  Write("added_tokens.json", R"({"cat</w>": 1})");
  ExpectFault("added_tokens.json gives the added token \"cat</w>\" the id 1");
  Write("added_tokens.json", R"({"<s0>": NaN})");
  ExpectFault("added_tokens.json gives \"<s0>\" the id \"NaN\"");
  std::filesystem::remove(folder_ + "/added_tokens.json");
  Write("tokenizer_config.json", R"({"added_tokens_decoder": 3})");
  ExpectFault("tokenizer_config.json is not CLIP's: added_tokens_decoder is 3");
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {"49408": {"content": "<s0>", "lstrip": true}}})");
  ExpectFault("lstrip is true, must be false");
}

// A folder with tokenizer.json and tokenizer_config.json alone, as transformers 5 writes it.
class TokenizerJsonTest : public BrokenClipTokenizerTest {
 protected:
  void SetUp() override {
    BrokenClipTokenizerTest::SetUp();
    json_ = nlohmann::json::parse(R"json({
      "version": "1.0", "truncation": null, "padding": null, "added_tokens": [
        {"id": 49406, "content": "<|startoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true},
        {"id": 49407, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": false, "special": true}],
      "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"}]},
      "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex":
         "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},
         "behavior": "Removed", "invert": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
      "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 49407],
        "cls": ["<|startoftext|>", 49406], "trim_offsets": false, "add_prefix_space": false},
      "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false}})json");
    json_["model"]["vocab"] = Vocabulary();
    std::ifstream stream(folder_ + "/merges.txt");
    for (std::string line; std::getline(stream, line);) {
      if (!line.empty() && line[0] != '#') {
        const size_t space = line.find(' ');
        json_["model"]["merges"].push_back({line.substr(0, space), line.substr(space + 1)});
      }
    }
    for (const char* const name : {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"}) {
      std::filesystem::remove(absl::StrCat(folder_, "/", name));
    }
  }

  std::unique_ptr<ClipTokenizer> LoadWritten() {
    Write("tokenizer.json", json_.dump());
    auto tokenizer = ClipTokenizer::Load(folder_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
  }

  void ExpectEqualsTheReference(const ClipTokenizer& tokenizer, const char* name) {
    std::ifstream stream(GoldenPath("tokenizer/cases.jsonl"));
    int count = 0;
    for (std::string line; std::getline(stream, line); ++count) {
      const nlohmann::json one = nlohmann::json::parse(line);
      const std::string text = one["text"];
      EXPECT_EQ(tokenizer.Encode(text).value(), one[name]["ids"].get<std::vector<int64_t>>()) << text;
      EXPECT_EQ(tokenizer.EncodePaddedForTest(text).value(), one[name]["ids_77"].get<std::vector<int64_t>>()) << text;
    }
    EXPECT_EQ(count, 294);
  }

  nlohmann::json json_;
};

TEST_F(TokenizerJsonTest, EqualsTheReferenceOnEveryPrompt) {
  ExpectEqualsTheReference(*LoadWritten(), "tokenizer");
  Write("tokenizer_config.json", R"({"pad_token": "!", "tokenizer_class": "CLIPTokenizer"})");
  json_["added_tokens"].push_back({{"id", 0}, {"content", "!"}, {"special", true}});
  ExpectEqualsTheReference(*LoadWritten(), "tokenizer_2");
}

TEST_F(TokenizerJsonTest, ReadsWhatEarlierVersionsWrote) {
  for (nlohmann::json& merge : json_["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  json_["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
      R"('s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+)";
  json_["normalizer"]["normalizers"].erase(1);
  for (const char* const key : {"byte_fallback", "ignore_merges"}) {
    json_["model"].erase(key);
  }
  json_["padding"] = {{"pad_token", "!"}, {"pad_id", 0}};
  json_["post_processor"] = nlohmann::json::parse(R"({"type": "TemplateProcessing", "single": [
      {"SpecialToken": {"id": "<|startoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
      {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}], "special_tokens": {
      "<|startoftext|>": {"id": "<|startoftext|>", "ids": [49406], "tokens": ["<|startoftext|>"]},
      "<|endoftext|>": {"id": "<|endoftext|>", "ids": [49407], "tokens": ["<|endoftext|>"]}}})");
  ExpectEqualsTheReference(*LoadWritten(), "tokenizer_2");
}

TEST_F(TokenizerJsonTest, TheTwoFilesGoBeforeIt) {
  Write("tokenizer.json", "{}");
  ExpectFault("model.type is null");
  for (const char* const name : {"vocab.json", "merges.txt"}) {
    std::filesystem::copy(absl::StrCat(GoldenPath("pipeline/tokenizer/"), name), absl::StrCat(folder_, "/", name));
  }
  EXPECT_TRUE(ClipTokenizer::Load(folder_).ok());
}

TEST_F(TokenizerJsonTest, RefusesWhatIsNotClips) {
  const struct {
    const char *place, *value, *says;
  } cases[] = {
      {"/model", "null", "model.type is null"},
      {"/model", "[]", "model.type is null"},
      {"/model/type", "\"WordPiece\"", "model.type is \"WordPiece\", must be \"BPE\""},
      {"/model/type", "NaN", "model.type is \"NaN\""},
      {"/model/end_of_word_suffix", "null", "model.end_of_word_suffix is null"},
      {"/model/dropout", "0.1", "model.dropout is 0.1"},
      {"/model/continuing_subword_prefix", "\"##\"", "model.continuing_subword_prefix is \"##\""},
      {"/model/byte_fallback", "true", "model.byte_fallback is true"},
      {"/model/ignore_merges", "true", "model.ignore_merges is true"},
      {"/model/vocab", "[\"a\"]", "model.vocab is [\"a\"], must be an object"},
      {"/model/vocab/cat<~1w>", "-1", "cat</w> is -1"},
      {"/model/vocab/cat<~1w>", "Infinity", "cat</w> is \"Infinity\""},
      {"/model/vocab/cat<~1w>", "123456789012345678901234567890", "once each"},
      {"/model/merges", "null", "model.merges is null, must be an array"},
      {"/model/merges/3", "\"a b c\"", "model.merges[3] is \"a b c\", not two tokens"},
      {"/model/merges/3", "[\"a\"]", "model.merges[3] is [\"a\"], not two tokens"},
      {"/model/merges/3", "[\"a\", 1]", "model.merges[3] is [\"a\",1], not two tokens"},
      {"/model/merges/3", "[\"qqq\", \"zzz\"]", "model.merges[3] merges what tokenizer.json lacks: qqq zzz"},
      {"/normalizer", "null", "normalizer is null"},
      {"/normalizer", "{\"type\": \"BertNormalizer\"}", "normalizer is {\"type\":\"BertNormalizer\"}"},
      {"/normalizer/normalizers/0", "{\"type\": \"NFKC\"}", "normalizer is "},
      {"/normalizer/normalizers/1/content", "\"_\"", "normalizer is "},
      {"/normalizer/normalizers/2", "{\"type\": \"NFC\"}", "must be NFC, then Lowercase"},
      {"/pre_tokenizer", "null", "pre_tokenizer is null"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"[a-z]+\"", "must be a Split by CLIP's pattern"},
      {"/pre_tokenizer/pretokenizers/0/invert", "false", "must be a Split by CLIP's pattern"},
      {"/pre_tokenizer/pretokenizers/1", "{\"type\": \"Metaspace\"}", "pre_tokenizer.pretokenizers[1] is"},
      {"/pre_tokenizer/pretokenizers/1/add_prefix_space", "true", "must be ByteLevel without add_prefix_space"},
      {"/post_processor", "null", "post_processor is null"},
      {"/post_processor/cls/1", "49407", "puts the ids 49406 and 49407 around the text"},
      {"/added_tokens", "{}", "added_tokens is {}"},
      {"/added_tokens/0", "{\"content\": \"\", \"id\": 1}", "added_tokens is {\"content\":\"\""},
      {"/added_tokens/0/content", "NaN", "must be an object with a text \"content\" and an \"id\""},
      {"/added_tokens/0/id", "NaN", "must be an object with a text \"content\" and an \"id\""},
      {"/added_tokens/0/id", "49410", "gives the added token \"<|startoftext|>\" the id 49410"},
      {"/added_tokens/0/single_word", "true", "single_word is true, must be false"},
      {"/padding", "{\"pad_token\": 1}", "has no text for pad_token"},
      {"/padding", "{\"pad_token\": \"no such\"}", "lacks the pad_token \"no such\""},
  };
  const nlohmann::json sound = json_;
  for (const auto& [place, value, says] : cases) {
    SCOPED_TRACE(absl::StrCat(place, " ", value));
    json_ = sound;
    json_[nlohmann::json::json_pointer(place)] = "PLACE";
    std::string text = json_.dump();
    Write("tokenizer.json", text.replace(text.find("\"PLACE\""), 7, value));
    ExpectFault("tokenizer.json ");
    ExpectFault(says);
  }
}

// The depth of a file must not be the depth of a recursion.
TEST_F(TokenizerJsonTest, DeepFilesAreRefused) {
  const std::string deep = absl::StrCat("{\"a\": ", std::string(1'000'000, '['), std::string(1'000'000, ']'), "}");
  const std::string open = absl::StrCat("{\"a\": ", std::string(1'000'000, '['));
  for (const std::string& text : {deep, open}) {
    Write("tokenizer.json", text);
    ExpectFault("tokenizer.json nests arrays and objects more than 64 deep");
  }
  LoadWritten();
  for (const char* const name : {"special_tokens_map.json", "tokenizer_config.json", "added_tokens.json"}) {
    Write(name, deep);
    ExpectFault(absl::StrCat(name, " nests arrays and objects more than 64 deep"));
    std::filesystem::remove(absl::StrCat(folder_, "/", name));
  }
}

}  // namespace
}  // namespace hotlora
