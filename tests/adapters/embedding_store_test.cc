#include "src/adapters/embedding_store.h"

#include <unistd.h>

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "tests/adapter_format/safetensors_writer.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr EmbeddingWidths kWidths{2, 3};

TEST(ParseEmbeddingTest, ReadsBothEncodersInAnyDtype) {
  const auto flat = ParseEmbedding(SafetensorsWriter()
                                       .Add<float>("clip_l", "F32", {2}, {1.0f, -2.0f})
                                       .Add<double>("clip_g", "F64", {1, 3}, {0.5, 0.25, 3.0})
                                       .Parse(),
                                   kWidths);
  ASSERT_TRUE(flat.ok()) << flat.status();
  EXPECT_EQ(flat->count, 1u);
  EXPECT_THAT(flat->first, ElementsAre(1.0f, -2.0f));
  EXPECT_THAT(flat->second, ElementsAre(0.5f, 0.25f, 3.0f));
  const auto half =
      ParseEmbedding(SafetensorsWriter()
                         .Add<uint16_t>("text_encoders_0", "F16", {2, 2}, {0x3C00, 0xC000, 0, 0x0001})
                         .Add<uint16_t>("text_encoders_1", "BF16", {2, 3}, {0x3F80, 0xC000, 0, 0, 0, 0x4000})
                         .Parse(),
                     kWidths);
  ASSERT_TRUE(half.ok()) << half.status();
  EXPECT_EQ(half->count, 2u);
  EXPECT_THAT(half->first, ElementsAre(1.0f, -2.0f, 0.0f, 5.9604645e-8f));
  EXPECT_THAT(half->second, ElementsAre(1.0f, -2.0f, 0.0f, 0.0f, 0.0f, 2.0f));
}

void ExpectRefused(const SafetensorsWriter& writer, const std::string& reason, const std::string& what) {
  const auto vectors = ParseEmbedding(writer.Parse(), kWidths);
  EXPECT_EQ(vectors.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetails(vectors.status()).reason, reason) << what;
  EXPECT_THAT(std::string(vectors.status().message()), HasSubstr(what));
}

TEST(ParseEmbeddingTest, NamesWhatItRefuses) {
  using W = SafetensorsWriter;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(W(), "EMBEDDING_MISMATCH", "lacks clip_l");
  ExpectRefused(W().Add("clip_l", {1, 2}), "EMBEDDING_MISMATCH", "lacks clip_g");
  ExpectRefused(W().Add("emb_params", {4, 768}), "EMBEDDING_MISMATCH",
                "\"emb_params\"; needed are clip_l and clip_g (");
  ExpectRefused(W().Add("clip_l", {1, 2}).Add("clip_g", {1, 3}).Add("clip_l_out", {1, 2}), "EMBEDDING_INVALID",
                "\"clip_l_out\"");
  ExpectRefused(W().Add("clip_l", {1, 2}).Add("clip_g", {1, 3}).Add("text_encoders_0", {1, 2}), "EMBEDDING_INVALID",
                "mean the same");
  ExpectRefused(W().Add("clip_l", {1, 3}).Add("clip_g", {1, 2}), "EMBEDDING_MISMATCH", "this model's vectors have 2");
  ExpectRefused(W().Add("clip_l", {2, 2}).Add("clip_g", {1, 3}), "EMBEDDING_INVALID", "both must have the same number");
  ExpectRefused(W().Add("clip_l", {76, 2}).Add("clip_g", {76, 3}), "EMBEDDING_INVALID", "allowed are 1 to 75");
  ExpectRefused(W().Add("clip_l", {0, 2}).Add("clip_g", {0, 3}), "EMBEDDING_INVALID", "has 0 vectors");
  ExpectRefused(W().Add("clip_l", {1, 1, 2}).Add("clip_g", {1, 3}), "EMBEDDING_INVALID", "[1, 1, 2]");
  ExpectRefused(W().Add<float>("clip_l", "F32", {}, {1.0f}).Add("clip_g", {1, 3}), "EMBEDDING_INVALID", "F32 []");
  ExpectRefused(W().Add<int32_t>("clip_l", "I32", {1, 2}, {1, 2}).Add("clip_g", {1, 3}), "EMBEDDING_INVALID", "I32");
  ExpectRefused(W().Add("clip_l", {1, 2}).Add<float>("clip_g", "F32", {1, 3}, {0, kNan, 0}), "EMBEDDING_INVALID",
                "not finite");
}

class EmbeddingStoreTest : public testing::Test {
 protected:
  std::unique_ptr<EmbeddingStore> Open(bool follow_links = false) {
    auto store = EmbeddingStore::Create({folder_.path(), follow_links, kWidths});
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

  static std::string ReasonOf(const absl::StatusOr<Embedding>& embedding) {
    return embedding.ok() ? "" : GetErrorDetails(embedding.status()).reason;
  }

  TemporaryFolder folder_;
};

TEST_F(EmbeddingStoreTest, ReadsWhatTheFileSaysNow) {
  std::filesystem::create_directory(folder_.Under("styles"));
  const std::string path = folder_.Under("styles/ink.safetensors");
  SafetensorsWriter().Add("clip_l", {1, 2}, 1.0f).Add("clip_g", {1, 3}, 2.0f).Save(path);
  const auto store = Open();
  const auto first = store->Read("styles/ink");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->name, "styles/ink");
  EXPECT_EQ(first->content_sha256.size(), 64u);
  EXPECT_THAT(first->vectors->first, ElementsAre(1.0f, 1.0f));
  SafetensorsWriter().Add("clip_l", {1, 2}, 3.0f).Add("clip_g", {1, 3}, 2.0f).Save(path);
  const auto second = store->Read("styles/ink");
  ASSERT_TRUE(second.ok());
  EXPECT_THAT(second->vectors->first, ElementsAre(3.0f, 3.0f));
  EXPECT_NE(second->content_sha256, first->content_sha256);
}

TEST_F(EmbeddingStoreTest, ReadsFromTheFolderThatThePathNamesNow) {
  const auto save = [&](float value) {
    SafetensorsWriter().Add("clip_l", {1, 2}, value).Add("clip_g", {1, 3}, 2.0f).Save(folder_.Under("ink.safetensors"));
  };
  save(1.0f);
  const auto store = Open();
  ASSERT_TRUE(store->Read("ink").ok());
  std::filesystem::remove_all(folder_.path());
  EXPECT_EQ(ReasonOf(store->Read("ink")), "EMBEDDING_NOT_FOUND");
  std::filesystem::create_directory(folder_.path());
  save(3.0f);
  const auto now = store->Read("ink");
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_THAT(now->vectors->first, ElementsAre(3.0f, 3.0f));
}

TEST_F(EmbeddingStoreTest, SaysWhatIsNotThereAndWhatIsNotSound) {
  std::ofstream(folder_.Under("text.safetensors")) << "no tensors here";
  std::ofstream(folder_.Under("huge.safetensors")) << std::string(5 << 20, 'x');
  SafetensorsWriter().Add("clip_l", {1, 4}).Add("clip_g", {1, 3}).Save(folder_.Under("wide.safetensors"));
  SafetensorsWriter().Add("clip_l", {1, 2}).Add("clip_g", {1, 3}).Save(folder_.Under("good.safetensors"));
  const auto store = Open();
  EXPECT_EQ(ReasonOf(store->Read("good")), "");
  for (const char* name : {"none", "../good", "/good", "", "good/"}) {
    const auto embedding = store->Read(name);
    EXPECT_EQ(ReasonOf(embedding), "EMBEDDING_NOT_FOUND") << name;
    EXPECT_EQ(embedding.status().code(), absl::StatusCode::kNotFound);
  }
  EXPECT_EQ(ReasonOf(store->Read("text")), "EMBEDDING_INVALID");
  EXPECT_EQ(ReasonOf(store->Read("huge")), "EMBEDDING_INVALID");
  const auto wide = store->Read("wide");
  EXPECT_EQ(ReasonOf(wide), "EMBEDDING_MISMATCH");
  EXPECT_THAT(std::string(wide.status().message()), HasSubstr("embedding \"wide\" clip_l is [1, 4]"));
  EXPECT_EQ(ReasonOf(EmbeddingStore::Create({})->get()->Read("good")), "EMBEDDING_NOT_FOUND");
  EXPECT_FALSE(EmbeddingStore::Create({folder_.Under("none"), false, {}}).ok());
}

TEST_F(EmbeddingStoreTest, LinksThatLeaveTheFolderNeedLeave) {
  const TemporaryFolder elsewhere;
  SafetensorsWriter().Add("clip_l", {1, 2}).Add("clip_g", {1, 3}).Save(elsewhere.Under("a.safetensors"));
  ASSERT_EQ(symlink(elsewhere.Under("a.safetensors").c_str(), folder_.Under("a.safetensors").c_str()), 0);
  EXPECT_EQ(ReasonOf(Open()->Read("a")), "EMBEDDING_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Open(/*follow_links=*/true)->Read("a")), "");
}

}  // namespace
}  // namespace hotlora
