#include "src/weights/parallel_read.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/temporary_folder.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

class ParallelReadTest : public testing::TestWithParam<int> {
 protected:
  ParallelReadTest() {
    for (size_t i = 0; i < text_.size(); ++i) {
      text_[i] = static_cast<char>(i * 2654435761u >> 13);
    }
    std::ofstream(path_, std::ios::binary) << text_;
  }

  // Parts of the lengths, from byte 3 on.
  std::vector<FilePart> PartsOf(const std::vector<uint64_t>& lengths) {
    std::vector<FilePart> parts;
    uint64_t offset = 3;
    for (const uint64_t length : lengths) {
      parts.push_back({offset, length, reinterpret_cast<std::byte*>(read_.data()) + offset});
      offset += length;
    }
    return parts;
  }

  static std::string HashOf(const std::string& text) {
    Sha256 hash;
    hash.Update(text.data(), text.size());
    return hash.HexDigest();
  }

  const TemporaryFolder folder_;
  const std::string path_ = folder_.Under("file");
  std::string text_ = std::string(11 * kMiB, '\0');
  std::string read_ = std::string(11 * kMiB, '\0');
};

INSTANTIATE_TEST_SUITE_P(Readers, ParallelReadTest, testing::Values(0, 1, 3));

TEST_P(ParallelReadTest, AllBytesArriveAndAreHashedInTheirOrder) {
  const auto file = OpenRegular(path_);
  ASSERT_TRUE(file.ok());
  const std::vector<uint64_t> lengths = {1, 5 * kMiB + 7, 0, 4 * kMiB, 100, kMiB};
  uint64_t end = 3;
  for (const uint64_t length : lengths) {
    end += length;
  }
  Sha256 hash;
  ASSERT_TRUE(ReadParts(*file, PartsOf(lengths), GetParam(), hash).ok());
  EXPECT_EQ(hash.HexDigest(), HashOf(text_.substr(3, end - 3)));
  EXPECT_TRUE(read_.substr(3, end - 3) == text_.substr(3, end - 3));
  EXPECT_EQ(read_.find_first_not_of('\0', end), std::string::npos);
}

TEST_P(ParallelReadTest, APartWithoutMemoryIsOnlyHashed) {
  const auto file = OpenRegular(path_);
  ASSERT_TRUE(file.ok());
  std::vector<FilePart> parts = PartsOf({kMiB, 3 * kMiB, 2 * kMiB});
  parts[1].to = nullptr;
  Sha256 hash;
  ASSERT_TRUE(ReadParts(*file, parts, GetParam(), hash).ok());
  EXPECT_EQ(hash.HexDigest(), HashOf(text_.substr(3, 6 * kMiB)));
  EXPECT_TRUE(read_.substr(3, kMiB) == text_.substr(3, kMiB));
  EXPECT_TRUE(read_.substr(3 + kMiB, 3 * kMiB) == std::string(3 * kMiB, '\0'));
}

TEST_P(ParallelReadTest, AFileThatIsTooShortIsDataLoss) {
  const auto file = OpenRegular(path_);
  ASSERT_TRUE(file.ok());
  for (const uint64_t size : {uint64_t{2}, 5 * kMiB, 10 * kMiB}) {
    ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(size)), 0);
    Sha256 hash;
    std::vector<FilePart> parts = PartsOf({kMiB, 9 * kMiB});
    EXPECT_EQ(ReadParts(*file, parts, GetParam(), hash).code(), absl::StatusCode::kDataLoss);
    for (FilePart& part : parts) {
      part.to = nullptr;
      EXPECT_EQ(ReadParts(*file, parts, GetParam(), hash).code(), absl::StatusCode::kDataLoss);
    }
  }
}

TEST_P(ParallelReadTest, SaysWhyAFileCannotBeRead) {
  OpenFile folder;  // read() and pread() refuse it
  folder.descriptor = open(folder_.path().c_str(), O_RDONLY);
  ASSERT_GE(folder.descriptor, 0);
  Sha256 hash;
  const absl::Status status = ReadParts(folder, PartsOf({6 * kMiB}), GetParam(), hash);
  EXPECT_THAT(status.ToString(), HasSubstr("Is a directory"));
}

TEST_P(ParallelReadTest, NoPartsAreNothingToRead) {
  const auto file = OpenRegular(path_);
  ASSERT_TRUE(file.ok());
  Sha256 hash;
  EXPECT_TRUE(ReadParts(*file, {}, GetParam(), hash).ok());
  EXPECT_EQ(hash.HexDigest(), HashOf(""));
}

TEST(ReadersForTest, LeaveACpuToTheCallingThread) {
  EXPECT_EQ(ReadersFor({1, 1, std::nullopt}, false), 0);
  EXPECT_EQ(ReadersFor({2, 2, std::nullopt}, false), 1);
  EXPECT_EQ(ReadersFor({64, 32, std::nullopt}, false), 3);
  EXPECT_EQ(ReadersFor({64, 32, 2}, false), 1) << "a container's quota counts";
  EXPECT_EQ(ReadersFor({64, 32, std::nullopt}, true), 0) << "each takes addresses";
}

}  // namespace
}  // namespace hotlora
