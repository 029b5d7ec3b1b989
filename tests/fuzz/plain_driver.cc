// Runs a fuzz target where there is no libFuzzer: over files as they are, then over random mutations of them.
//
//   fuzz_adapter [-runs=N] [-seed=N] FILE_OR_FOLDER...

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uintmax_t kMaxSeedBytes = 1 << 18;

void AddSeed(const std::filesystem::path& path, std::vector<Bytes>& seeds) {
  if (!std::filesystem::is_regular_file(path) || std::filesystem::file_size(path) > kMaxSeedBytes) {
    return;
  }
  std::ifstream stream(path, std::ios::binary);
  seeds.emplace_back(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
}

// Where the header of a safetensors file ends; the size where it is none.
size_t HeaderEnd(const Bytes& bytes) {
  uint64_t length = 0;
  if (bytes.size() < sizeof(length)) {
    return bytes.size();
  }
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length <= bytes.size() - sizeof(length) ? sizeof(length) + length : bytes.size();
}

class Mutator {
 public:
  Mutator(const std::vector<Bytes>& seeds, uint64_t seed) : seeds_(seeds), random_(seed) {}

  Bytes Next() {
    Bytes bytes = seeds_[Below(seeds_.size())];
    const size_t header = HeaderEnd(bytes), data = bytes.size() - header;
    for (size_t count = 1 + Below(4); count > 0; --count) {
      MutateOnce(bytes, data);
    }
    // Mostly the length still fits, so that what lies behind it is read.
    if (header < bytes.size() + data && bytes.size() >= data + sizeof(uint64_t) && Below(10) != 0) {
      const uint64_t length = bytes.size() - data - sizeof(uint64_t);
      std::memcpy(bytes.data(), &length, sizeof(length));
    }
    return bytes;
  }

 private:
  size_t Below(size_t count) { return count == 0 ? 0 : random_() % count; }

  // In the header rather than in the `data` bytes at the end.
  void MutateOnce(Bytes& bytes, size_t data) {
    const size_t reach =
        std::max<size_t>(1, Below(8) == 0 ? bytes.size() : bytes.size() - std::min(data, bytes.size()));
    const size_t place = std::min(Below(reach), bytes.size());
    static constexpr char kTokens[] = "{}[]\",:0123456789-.eE\\/ _abcdkpw";
    switch (Below(8)) {
      case 0:
        if (place < bytes.size()) {
          bytes[place] ^= static_cast<uint8_t>(1u << Below(8));
        }
        break;
      case 1:
        if (place < bytes.size()) {
          bytes[place] = static_cast<uint8_t>(kTokens[Below(sizeof(kTokens) - 1)]);
        }
        break;
      case 2:
        bytes.insert(bytes.begin() + place, static_cast<uint8_t>(kTokens[Below(sizeof(kTokens) - 1)]));
        break;
      case 3:
        bytes.erase(bytes.begin() + place, bytes.begin() + std::min(bytes.size(), place + 1 + Below(12)));
        break;
      case 4: {  // a piece of itself
        const size_t from = std::min(Below(reach), bytes.size());
        const Bytes piece(bytes.begin() + from, bytes.begin() + std::min(bytes.size(), from + Below(64)));
        bytes.insert(bytes.begin() + place, piece.begin(), piece.end());
        break;
      }
      case 5: {  // a piece of another seed in place of its own
        const Bytes& other = seeds_[Below(seeds_.size())];
        const size_t from = Below(std::max<size_t>(1, HeaderEnd(other)));
        for (size_t i = 0, count = Below(48); i < count && place + i < bytes.size() && from + i < other.size(); ++i) {
          bytes[place + i] = other[from + i];
        }
        break;
      }
      case 6: {  // a piece of itself many times, rarely: nested deeply, or long
        const size_t from = std::min(Below(reach), bytes.size());
        const Bytes piece(bytes.begin() + from, bytes.begin() + std::min(bytes.size(), from + 1 + Below(8)));
        Bytes run;
        for (size_t count = Below(16) == 0 ? 4096 : 4; count > 0; --count) {
          run.insert(run.end(), piece.begin(), piece.end());
        }
        bytes.insert(bytes.begin() + place, run.begin(), run.end());
        break;
      }
      default: {  // another digit
        const auto digit =
            std::find_if(bytes.begin() + place, bytes.end(), [](uint8_t c) { return c >= '0' && c <= '9'; });
        if (digit != bytes.end()) {
          *digit = static_cast<uint8_t>('0' + Below(10));
        }
        break;
      }
    }
  }

  const std::vector<Bytes>& seeds_;
  std::mt19937_64 random_;
};

}  // namespace

int main(int argc, char** argv) {
  uint64_t runs = 0, seed = 1;
  std::vector<Bytes> seeds;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("-runs=", 0) == 0) {
      runs = std::stoull(argument.substr(6));
    } else if (argument.rfind("-seed=", 0) == 0) {
      seed = std::stoull(argument.substr(6));
    } else if (std::filesystem::is_directory(argument)) {
      std::vector<std::filesystem::path> paths;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(argument)) {
        paths.push_back(entry.path());
      }
      std::sort(paths.begin(), paths.end());  // the same seeds give the same runs
      for (const std::filesystem::path& path : paths) {
        AddSeed(path, seeds);
      }
    } else {
      AddSeed(argument, seeds);
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "no seed files\n");
    return 2;
  }
  for (const Bytes& bytes : seeds) {
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  Mutator mutator(seeds, seed);
  for (uint64_t run = 0; run < runs; ++run) {
    const Bytes bytes = mutator.Next();
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu seeds and %llu mutations\n", seeds.size(), static_cast<unsigned long long>(runs));
  return 0;
}
