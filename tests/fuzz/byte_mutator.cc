#include "tests/fuzz/byte_mutator.h"

#include <algorithm>

namespace hotlora {
namespace {

constexpr char kTokens[] = "{}[]\",:0123456789-.eE\\/ _abcdkpw";

}  // namespace

Bytes ByteMutator::Piece(const Bytes& bytes, size_t max_bytes) {
  const size_t from = Below(bytes.size());
  return {bytes.begin() + from, bytes.begin() + std::min(bytes.size(), from + 1 + Below(max_bytes))};
}

void ByteMutator::Mutate(Bytes& bytes) {
  const size_t place = Below(bytes.size() + 1);
  const auto token = static_cast<uint8_t>(kTokens[Below(sizeof(kTokens) - 1)]);
  const auto insert = [&](const Bytes& piece) { bytes.insert(bytes.begin() + place, piece.begin(), piece.end()); };
  switch (Below(8)) {
    case 0:
      if (place < bytes.size()) {
        bytes[place] ^= static_cast<uint8_t>(1u << Below(8));
      }
      break;
    case 1:
      if (place < bytes.size()) {
        bytes[place] = token;
      }
      break;
    case 2:
      insert({token});
      break;
    case 3: {  // rarely all that follows
      const size_t count = Below(64) == 0 ? bytes.size() : 1 + Below(12);
      bytes.erase(bytes.begin() + place, bytes.begin() + std::min(bytes.size(), place + count));
      break;
    }
    case 4:
      insert(Piece(bytes, 64));
      break;
    case 5: {  // a piece of another input in place of its own
      const Bytes piece = Piece(Pick(), 48);
      std::copy_n(piece.begin(), std::min(piece.size(), bytes.size() - place), bytes.begin() + place);
      break;
    }
    case 6: {  // a piece of itself many times, rarely: nested deeply, or long
      const Bytes piece = Piece(bytes, 8);
      Bytes run;
      for (size_t count = Below(16) == 0 ? 4096 : 4; count > 0; --count) {
        run.insert(run.end(), piece.begin(), piece.end());
      }
      insert(run);
      break;
    }
    default: {
      const auto digit =
          std::find_if(bytes.begin() + place, bytes.end(), [](uint8_t c) { return c >= '0' && c <= '9'; });
      if (digit != bytes.end()) {
        *digit = static_cast<uint8_t>('0' + Below(10));
      }
      break;
    }
  }
}

}  // namespace hotlora
