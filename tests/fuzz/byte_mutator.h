#ifndef HOTLORA_TESTS_FUZZ_BYTE_MUTATOR_H_
#define HOTLORA_TESTS_FUZZ_BYTE_MUTATOR_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace hotlora {

using Bytes = std::vector<uint8_t>;

// Random changes of bytes, for builds without libFuzzer. The same seed gives the same changes.
class ByteMutator {
 public:
  // Takes pieces out of `pool`, which must outlive this object and not be empty.
  ByteMutator(const std::vector<Bytes>& pool, uint64_t seed) : pool_(pool), random_(seed) {}

  // A member of the pool.
  const Bytes& Pick() { return pool_[Below(pool_.size())]; }

  // One change: a bit, a character, a piece that goes, comes again, comes often, or comes from the pool, a digit.
  void Mutate(Bytes& bytes);

  // From 0 to count - 1; 0 if count is 0.
  size_t Below(size_t count) { return count == 0 ? 0 : random_() % count; }

 private:
  Bytes Piece(const Bytes& bytes, size_t max_bytes);

  const std::vector<Bytes>& pool_;
  std::mt19937_64 random_;
};

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FUZZ_BYTE_MUTATOR_H_
