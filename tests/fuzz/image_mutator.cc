// Changes an image file as LLVMFuzzerCustomMutator: bytes, mostly with the checksums of a PNG made right, so that what
// lies behind them is read.

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

constexpr size_t kSignatureBytes = 8, kWordBytes = 4;  // a chunk is length, type, data, checksum
constexpr char kSignature[] = "\x89PNG\r\n\x1a\n";

uint32_t ReadWord(const uint8_t* from) {
  return uint32_t{from[0]} << 24 | uint32_t{from[1]} << 16 | uint32_t{from[2]} << 8 | uint32_t{from[3]};
}

void WriteWord(uint8_t* to, uint32_t word) {
  for (size_t i = 0; i < kWordBytes; ++i) {
    to[i] = static_cast<uint8_t>(word >> (24 - 8 * i));
  }
}

void CorrectChecksums(uint8_t* data, size_t size) {
  size_t begin = kSignatureBytes;
  while (begin + 3 * kWordBytes <= size) {
    const uint32_t length = ReadWord(data + begin);
    if (length > size - begin - 3 * kWordBytes) {
      return;
    }
    uint8_t* const type = data + begin + kWordBytes;
    WriteWord(type + kWordBytes + length, static_cast<uint32_t>(crc32(0, type, kWordBytes + length)));
    begin += 3 * kWordBytes + length;
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  const size_t changed = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 8 != 0 && changed > kSignatureBytes && std::memcmp(data, kSignature, kSignatureBytes) == 0) {
    CorrectChecksums(data, changed);
  }
  return changed;
}
