#include "src/base/bounded_read.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

constexpr size_t kLimit = 100'000;  // more than one read takes

// A file in memory.
class File {
 public:
  explicit File(const std::string& text) : descriptor_(memfd_create("bounded_read_test", 0)) {
    EXPECT_EQ(pwrite(descriptor_, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  ~File() { close(descriptor_); }

  int descriptor() const { return descriptor_; }
  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  const int descriptor_;
};

TEST(BoundedReadTest, ReadsUpToTheLimit) {
  for (const size_t size : {size_t{0}, size_t{1}, kLimit - 1, kLimit}) {
    const std::string text(size, 'x');
    EXPECT_EQ(ReadWholeFile(File(text).path(), kLimit).value(), text) << size;
  }
}

TEST(BoundedReadTest, RefusesMoreWithTheSizeAndTheLimit) {
  const absl::Status status = ReadWholeFile(File(std::string(kLimit + 1, 'x')).path(), kLimit).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "has 100001 bytes; at most 100000 are allowed");
}

TEST(BoundedReadTest, KeepsTheLimitWhereTheSizeIsNotKnown) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ASSERT_EQ(write(ends[1], "four", 4), 4);
  EXPECT_EQ(ReadToEnd(ends[0], 3).status().message(), "has more than 3 bytes; at most 3 are allowed");
  close(ends[0]);
  close(ends[1]);
  EXPECT_FALSE(ReadWholeFile("/proc/self/stat", 1000).value().empty());
  EXPECT_EQ(ReadWholeFile("/dev/zero", kLimit).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(BoundedReadTest, ReadsFromWhereAnOpenFileStands) {
  const File file("0123456789");
  ASSERT_EQ(lseek(file.descriptor(), 7, SEEK_SET), 7);
  EXPECT_EQ(ReadToEnd(file.descriptor(), 3).value(), "789");
}

TEST(BoundedReadTest, SaysWhyAFileCannotBeRead) {
  const absl::Status missing = ReadWholeFile("/no/such/file", kLimit).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), "is missing");
  const absl::Status folder = ReadWholeFile("/", kLimit).status();
  EXPECT_EQ(folder.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(folder.message(), "cannot be read: Is a directory");
}

}  // namespace
}  // namespace hotlora
