#include "src/sdxl/clip_tokenizer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
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
      EXPECT_EQ(tokenizer->EncodePadded(text).value(), one[name]["ids_77"].get<std::vector<int64_t>>())
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
  const std::vector<int64_t> exact = *tokenizer->EncodePadded(text);
  EXPECT_EQ(exact, *tokenizer->Encode(text));
  EXPECT_EQ(*tokenizer->EncodePadded(text + "b b b"), exact);
  EXPECT_EQ(exact.size(), 77u);
}

TEST(ClipTokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Load("tokenizer");
  for (const char* text : {"\xff", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "<|endoftext|>\x80"}) {
    EXPECT_EQ(tokenizer->Encode(text).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(tokenizer->EncodePadded(text).status().code(), absl::StatusCode::kInvalidArgument);
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
  broken["no such token"] = broken["a</w>"];
  broken.erase("a</w>");
  Write("vocab.json", broken.dump());
  ExpectFault("lacks byte 97");
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

}  // namespace
}  // namespace hotlora
