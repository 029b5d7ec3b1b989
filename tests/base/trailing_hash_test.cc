#include "src/base/trailing_hash.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "src/base/sha256.h"

namespace hotlora {
namespace {

std::shared_ptr<std::byte> Bytes(uint64_t size) {
  std::shared_ptr<std::byte> bytes(new std::byte[size], std::default_delete<std::byte[]>());
  for (uint64_t i = 0; i < size; ++i) {
    bytes.get()[i] = static_cast<std::byte>(i * 2654435761U >> 13);
  }
  return bytes;
}

std::string HashOf(const std::byte* bytes, uint64_t size) {
  Sha256 hash;
  hash.Update(bytes, size);
  return hash.HexDigest();
}

TEST(TrailingHashTest, IsTheHashOfAllBytesHoweverTheyCome) {
  for (const uint64_t size : {uint64_t{1}, TrailingHash::kLeastForThread - 1, TrailingHash::kLeastForThread,
                              3 * TrailingHash::kLeastForThread + 17}) {
    const std::shared_ptr<std::byte> bytes = Bytes(size);
    const std::string expected = HashOf(bytes.get(), size);
    for (const uint64_t piece : {uint64_t{64} << 10, size}) {
      TrailingHash hash(bytes, size);
      for (uint64_t filled = 0; filled < size;) {
        filled = std::min(size, filled + piece);
        hash.AddUpTo(filled);
      }
      EXPECT_EQ(hash.HexDigest(), expected) << size << " bytes in pieces of " << piece;
      EXPECT_EQ(hash.HexDigest(), expected) << "asked again";
    }
  }
}

TEST(TrailingHashTest, DoesNotLookAtWhatIsNotFilled) {
  const uint64_t size = 4 * TrailingHash::kLeastForThread;
  const std::shared_ptr<std::byte> bytes = Bytes(size);
  const std::string expected = HashOf(bytes.get(), size);
  const std::vector<std::byte> whole(bytes.get(), bytes.get() + size);
  std::fill(bytes.get(), bytes.get() + size, std::byte{0});
  TrailingHash hash(bytes, size);
  for (uint64_t begin = 0; begin < size; begin += size / 8) {
    std::copy_n(whole.data() + begin, size / 8, bytes.get() + begin);
    hash.AddUpTo(begin + size / 8);
    std::this_thread::yield();
  }
  EXPECT_EQ(hash.HexDigest(), expected);
}

TEST(TrailingHashTest, ManyMayWaitForIt) {
  const uint64_t size = 2 * TrailingHash::kLeastForThread;
  const std::shared_ptr<std::byte> bytes = Bytes(size);
  const std::string expected = HashOf(bytes.get(), size);
  TrailingHash hash(bytes, size);
  std::vector<std::thread> readers;
  std::vector<std::string> digests(4);
  for (std::string& digest : digests) {
    readers.emplace_back([&hash, &digest] { digest = hash.HexDigest(); });
  }
  hash.AddUpTo(size);
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(digests, std::vector<std::string>(4, expected));
}

TEST(TrailingHashTest, EndsWithoutAllBytes) {
  const uint64_t size = 8 * TrailingHash::kLeastForThread;
  std::weak_ptr<std::byte> memory;
  {
    const std::shared_ptr<std::byte> bytes = Bytes(size);
    memory = bytes;
    TrailingHash unfilled(bytes, size), half(bytes, size);
    half.AddUpTo(size / 2);
  }
  EXPECT_TRUE(memory.expired());
}

}  // namespace
}  // namespace hotlora
