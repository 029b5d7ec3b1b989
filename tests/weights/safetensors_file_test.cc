#include "src/weights/safetensors_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/base/sha256.h"
#include "tests/golden_path.h"
#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string WithLength(uint64_t length, const std::string& rest) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<char>(length >> (8 * i));
  }
  return bytes + rest;
}

std::string Build(const std::string& header, const std::string& data = "") {
  return WithLength(header.size(), header + data);
}

absl::StatusOr<SafetensorsFile> Parse(const std::string& bytes,
                                      uint64_t max_header_bytes = SafetensorsFile::kMaxHeaderBytes) {
  std::vector<std::byte> copy(bytes.size());
  std::memcpy(copy.data(), bytes.data(), bytes.size());
  return SafetensorsFile::Parse(std::move(copy), max_header_bytes);
}

std::string WriteTemporary(const std::string& name, const std::string& bytes) {
  static const TemporaryFolder folder;
  const std::string path = folder.Under(name);
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string Golden(const std::string& name) {
  return GoldenPath(absl::StrCat("broken_adapters/", name, ".safetensors"));
}

constexpr char kTwoTensors[] = R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},)"
                               R"("__metadata__":{"format":"pt","empty":""},)"
                               R"("a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]}}  )";

TEST(SafetensorsFileTest, ReadsTensorsInTheOrderOfTheirData) {
  const auto file = Parse(Build(kTwoTensors, "abcd01234567"));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(file->tensors()[0].dtype, StoredDtype::kI8);
  EXPECT_THAT(file->tensors()[0].shape, ElementsAre(2, 2));
  EXPECT_EQ(file->tensors()[1].name, "b");
  EXPECT_EQ(std::memcmp(file->Data(file->tensors()[1]), "01234567", 8), 0);
  EXPECT_EQ(file->Find("b"), &file->tensors()[1]);
  EXPECT_EQ(file->Find("c"), nullptr);
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("empty", ""), Pair("format", "pt")));
  EXPECT_EQ(file->data_offset(), 8 + std::strlen(kTwoTensors));
  EXPECT_EQ(file->file_bytes(), file->data_offset() + 12);
}

TEST(SafetensorsFileTest, FileAndHeaderAndStreamAgree) {
  const std::string bytes = Build(kTwoTensors, "abcd01234567");
  const std::string path = WriteTemporary("agree.safetensors", bytes);
  Sha256 hash;
  hash.Update(bytes.data(), bytes.size());
  const std::string digest = hash.HexDigest();

  const auto header = SafetensorsFile::ReadHeader(path);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->sha256(), "");
  EXPECT_EQ(header->file_bytes(), bytes.size());
  EXPECT_EQ(header->tensors()[1].begin, 4u);

  const auto whole = SafetensorsFile::ReadFile(path, kMiB);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->sha256(), digest);
  EXPECT_EQ(std::memcmp(whole->Data(whole->tensors()[0]), "abcd", 4), 0);

  std::map<std::string, std::string> read;
  const auto streamed = SafetensorsFile::ReadInto(path, [&](const StoredTensor& tensor) -> absl::StatusOr<void*> {
    std::string& room = read[tensor.name];
    room.resize(tensor.bytes());
    return room.data();
  });
  ASSERT_TRUE(streamed.ok()) << streamed.status();
  EXPECT_EQ(streamed->sha256(), digest);
  EXPECT_THAT(read, ElementsAre(Pair("a", "abcd"), Pair("b", "01234567")));

  const auto hashed = SafetensorsFile::ReadInto(path, [](const auto&) { return absl::StatusOr<void*>(nullptr); });
  ASSERT_TRUE(hashed.ok()) << hashed.status();
  EXPECT_EQ(hashed->sha256(), digest);

  const auto ended = SafetensorsFile::ReadInto(
      path, [](const StoredTensor&) { return absl::StatusOr<void*>(absl::AbortedError("enough")); });
  EXPECT_EQ(ended.status(), absl::AbortedError("enough"));
}

TEST(SafetensorsFileTest, KnowsEveryDtype) {
  const std::vector<std::pair<std::string, size_t>> dtypes = {
      {"F64", 8}, {"F32", 4},  {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4},     {"I16", 2},    {"I8", 1},
      {"U8", 1},  {"BOOL", 1}, {"U16", 2}, {"U32", 4},  {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, size] : dtypes) {
    const auto file =
        Parse(Build(absl::StrCat(R"({"x":{"dtype":")", name, R"(","shape":[3],"data_offsets":[0,)", 3 * size, "]}}"),
                    std::string(3 * size, 'x')));
    ASSERT_TRUE(file.ok()) << name << file.status();
    EXPECT_EQ(NameOf(file->tensors()[0].dtype), name);
    EXPECT_EQ(SizeOf(file->tensors()[0].dtype), size);
  }
}

TEST(SafetensorsFileTest, AcceptsScalarsEmptyTensorsAndNoTensors) {
  const auto file = Parse(Build(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                                R"("e2":{"dtype":"F32","shape":[2,0],"data_offsets":[4,4]},)"
                                R"("e1":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                                "1234"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->Find("s")->shape.empty());
  EXPECT_EQ(file->Find("e1")->bytes(), 0u);
  EXPECT_THAT(file->Find("e2")->shape, ElementsAre(2, 0));
  EXPECT_TRUE(Parse(Build("{}")).ok());
  EXPECT_TRUE(Parse(Build(R"({"__metadata__":{}})")).ok());
}

struct BrokenCase {
  const char* name;
  std::string bytes;
  const char* message;
};

// The header of one tensor "x" of four bytes with some fields replaced.
std::string One(const std::string& fields) { return Build("{\"x\":{" + fields + "}}", "1234"); }

std::vector<BrokenCase> BrokenCases() {
  const std::string dims = "[1,1,1,1,1,1,1,1,1]";
  return {
      {"Array", Build("[]"), "begin"},
      {"LeadingSpace", Build(" {}"), "begin"},
      {"ByteOrderMark", Build("\xEF\xBB\xBF{}"), "begin"},
      {"EmptyHeader", WithLength(0, ""), "begin"},
      {"NulByteAndMore", Build(std::string("{}\0garbage", 10)), "NUL"},
      {"TextAfterObject", Build("{} x"), "JSON"},
      {"Comment", Build("{/**/}"), "JSON"},
      {"TrailingComma", Build("{\"__metadata__\":{},}"), "JSON"},
      {"Unclosed", Build("{\"x\":{"), "JSON"},
      {"NotUtf8", Build("{\"__metadata__\":{\"k\":\"\xff\"}}"), "UTF-8"},
      {"OverlongUtf8", Build("{\"__metadata__\":{\"k\":\"\xc0\xaf\"}}"), "UTF-8"},
      {"LoneSurrogate", Build("{\"__metadata__\":{\"k\":\"\\ud800\"}}"), "UTF-8"},
      {"MetadataNumber", Build("{\"__metadata__\":{\"k\":1}}"), "number"},
      {"MetadataNested", Build("{\"__metadata__\":{\"k\":{}}}"), "object"},
      {"MetadataNull", Build("{\"__metadata__\":null}"), "null"},
      {"MetadataString", Build("{\"__metadata__\":\"s\"}"), "string"},
      {"MetadataTwice", Build("{\"__metadata__\":{},\"__metadata__\":{}}"), "twice"},
      {"MetadataKeyTwice", Build("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}"), "twice"},
      {"EntryArray", Build("{\"x\":[]}"), "array"},
      {"EntryBoolean", Build("{\"x\":true}"), "boolean"},
      {"FieldTwice", One(R"("dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4])"), "twice"},
      {"FieldUnknown", One(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1)"), "unknown field"},
      {"DtypeMissing", One(R"("shape":[1],"data_offsets":[0,4])"), "lacks"},
      {"ShapeMissing", One(R"("dtype":"F32","data_offsets":[0,4])"), "lacks"},
      {"OffsetsMissing", One(R"("dtype":"F32","shape":[1])"), "lacks"},
      {"OneOffset", One(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "lacks"},
      {"ThreeOffsets", One(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "more than two"},
      {"DtypeUnknown", One(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), "unknown dtype"},
      {"DtypeOfHalfBytes", One(R"("dtype":"F4","shape":[8],"data_offsets":[0,4])"), "unknown dtype"},
      {"DtypeLowerCase", One(R"("dtype":"f32","shape":[1],"data_offsets":[0,4])"), "unknown dtype"},
      {"DtypeNumber", One(R"("dtype":1,"shape":[1],"data_offsets":[0,4])"), "number"},
      {"ShapeNumber", One(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "number"},
      {"ShapeString", One(R"("dtype":"F32","shape":["1"],"data_offsets":[0,4])"), "string"},
      {"ShapeNested", One(R"("dtype":"F32","shape":[[1]],"data_offsets":[0,4])"), "array"},
      {"ShapeNegative", One(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "negative"},
      {"ShapeFraction", One(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "integer"},
      {"ShapeExponent", One(R"("dtype":"F32","shape":[1e0],"data_offsets":[0,4])"), "integer"},
      {"DimensionBeyond64Bits", One(R"("dtype":"F32","shape":[18446744073709551617],"data_offsets":[0,4])"), "integer"},
      {"DimensionBeyondSigned", One(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4])"),
       "dimension"},
      {"NineDimensions", One(R"("dtype":"F32","shape":)" + dims + R"(,"data_offsets":[0,4])"), "dimensions"},
      {"ProductOverflows", One(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4])"), "product"},
      {"ProductOverflowsAroundZero", One(R"("dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0])"),
       "product"},
      // 2^62 + 1 elements of 4 bytes are 4 bytes modulo 2^64.
      {"BytesOverflow", One(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])"), "beyond 64"},
      {"SizeDisagrees", One(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "needs 8"},
      {"EmptyShapeWithBytes", One(R"("dtype":"F32","shape":[0],"data_offsets":[0,4])"), "needs 0"},
      {"NegativeOffset", One(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), "negative"},
      {"OffsetPastEnd", One(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "past the end"},
      {"OffsetFarPastEnd", One(R"("dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551615])"), "past the end"},
      {"OffsetsReversed", One(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "reversed"},
      {"HoleBefore", One(R"("dtype":"I8","shape":[3],"data_offsets":[1,4])"), "hole"},
      {"BytesAfter", One(R"("dtype":"I8","shape":[3],"data_offsets":[0,3])"), "1 bytes after"},
      {"DataWithoutTensors", Build("{}", "1"), "1 bytes after"},
      {"Overlap",
       Build(R"({"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},)"
             R"("b":{"dtype":"I8","shape":[2],"data_offsets":[2,4]}})",
             "1234"),
       "overlaps"},
      {"SameBytes",
       Build(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
             "1234"),
       "overlaps"},
      {"HoleBetween",
       Build(R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},)"
             R"("b":{"dtype":"I8","shape":[2],"data_offsets":[2,4]}})",
             "1234"),
       "hole"},
      {"NameTwice",
       Build(R"({"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},)"
             R"("a":{"dtype":"I8","shape":[2],"data_offsets":[2,4]}})",
             "1234"),
       "twice"},
  };
}

TEST(SafetensorsFileTest, RefusesEveryBrokenRuleByName) {
  ASSERT_TRUE(Parse(One(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])")).ok());
  for (const BrokenCase& broken : BrokenCases()) {
    const auto file = Parse(broken.bytes);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << broken.name << ": " << file.status();
    EXPECT_THAT(file.status().message(), HasSubstr(broken.message)) << broken.name;
  }
}

TEST(SafetensorsFileTest, RefusesTruncationAtEveryByte) {
  const std::string bytes = Build(kTwoTensors, "abcd01234567");
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_EQ(Parse(bytes.substr(0, length)).status().code(), absl::StatusCode::kDataLoss) << length;
  }
}

TEST(SafetensorsFileTest, SurvivesEveryChangedByteOfTheHeader) {
  const std::string bytes = Build(kTwoTensors, "abcd01234567");
  const size_t header_end = 8 + std::strlen(kTwoTensors);
  for (size_t at = 0; at < header_end; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ (1 << bit));
      const auto file = Parse(changed);
      if (!file.ok()) {
        EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
        continue;
      }
      // What was accepted still lies inside the file.
      for (const StoredTensor& tensor : file->tensors()) {
        EXPECT_LE(file->data_offset() + tensor.end, file->file_bytes());
      }
    }
  }
}

TEST(SafetensorsFileTest, KeepsToTheHeaderLimit) {
  EXPECT_TRUE(Parse(Build("{}    "), 6).ok());
  EXPECT_THAT(Parse(Build("{}    "), 5).status().message(), HasSubstr("allowed are 5"));
}

TEST(SafetensorsFileTest, NamesFromTheFileAreShortAndPrintableInMessages) {
  const std::string name = "\x1b[31m" + std::string(1000, 'n');
  const auto file = Parse(Build(absl::StrCat("{\"\\u001b", name.substr(1), "\":{\"dtype\":\"F32\"}}")));
  ASSERT_FALSE(file.ok());
  EXPECT_LT(file.status().message().size(), 300u);
  EXPECT_THAT(file.status().message(), HasSubstr("\\x1b[31mnnn"));
}

TEST(SafetensorsFileTest, RefusesGoldenFilesThatBreakTheFormatAndNoOthers) {
  const std::vector<std::string> unsound = {"empty",
                                            "seven_bytes",
                                            "truncated_header",
                                            "truncated_body",
                                            "header_length_2_to_60",
                                            "header_length_all_ones",
                                            "header_not_json",
                                            "header_deeply_nested",
                                            "header_not_utf8",
                                            "overlapping_offsets",
                                            "offset_past_end",
                                            "negative_offset",
                                            "reversed_offsets",
                                            "shape_product_overflows",
                                            "shape_and_size_disagree",
                                            "negative_dimension",
                                            "unknown_dtype",
                                            "duplicate_key",
                                            "trailing_bytes",
                                            "pickle_renamed",
                                            "zip_renamed",
                                            "text_file"};
  std::ifstream stream(GoldenPath("broken_adapters/manifest.json"));
  const nlohmann::json manifest = nlohmann::json::parse(stream);
  size_t refused = 0;
  for (const auto& one : manifest["cases"]) {
    const std::string name = one["name"];
    const bool sound = std::find(unsound.begin(), unsound.end(), name) == unsound.end();
    const auto file = SafetensorsFile::ReadFile(Golden(name), kMiB);
    EXPECT_EQ(file.ok(), sound) << name << ": " << file.status();
    if (!sound) {
      ++refused;
      EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << name;
      EXPECT_EQ(SafetensorsFile::ReadHeader(Golden(name)).status(), file.status()) << name;
    }
  }
  EXPECT_EQ(refused, unsound.size());
}

TEST(SafetensorsFileTest, SaysWhyAFileCannotBeOpened) {
  const std::string folder = testing::TempDir();
  EXPECT_EQ(SafetensorsFile::ReadFile(folder + "/not_there", kMiB).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(SafetensorsFile::ReadFile(folder, kMiB).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(SafetensorsFile::ReadHeader("/dev/zero").status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string path = WriteTemporary("large.safetensors", Build("{}"));
  EXPECT_EQ(SafetensorsFile::ReadFile(path, 9).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(SafetensorsFile::ReadFile(path, 10).ok());
}

TEST(SafetensorsFileTest, AFifoIsRefusedAtOnce) {
  const TemporaryFolder folder;
  const std::string path = folder.Under("fifo");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(SafetensorsFile::ReadFile(path, kMiB).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(SafetensorsFileTest, NoticesAFileThatGetsShorterWhileItIsRead) {
  const std::string bytes = Build(kTwoTensors, "abcd01234567");
  const std::string path = WriteTemporary("shrinks.safetensors", bytes);
  char room[16];
  const auto file = SafetensorsFile::ReadInto(path, [&](const StoredTensor& tensor) -> absl::StatusOr<void*> {
    if (tensor.name == "b") {
      EXPECT_EQ(truncate(path.c_str(), static_cast<off_t>(bytes.size() - 3)), 0);
    }
    return room + tensor.begin;
  });
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(file.status().message(), HasSubstr("shorter"));
}

}  // namespace
}  // namespace hotlora
