// Textual-inversion embeddings: any safetensors file, for the widths of the tiny golden model.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "src/adapters/embedding_store.h"
#include "src/base/error_details.h"
#include "src/weights/safetensors_file.h"

namespace {

void Check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kFirst = 8, kSecond = 16;
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const auto file = hotlora::SafetensorsFile::Parse(std::vector<std::byte>(begin, begin + size));
  if (!file.ok()) {
    return 0;
  }
  const auto vectors = hotlora::ParseEmbedding(*file, {kFirst, kSecond});
  if (!vectors.ok()) {
    const std::string reason = hotlora::GetErrorDetails(vectors.status()).reason;
    Check(reason == "EMBEDDING_INVALID" || reason == "EMBEDDING_MISMATCH");
    return 0;
  }
  Check(vectors->count >= 1 && vectors->count <= hotlora::kMaxEmbeddingVectors);
  Check(vectors->first.size() == size_t{vectors->count} * kFirst);
  Check(vectors->second.size() == size_t{vectors->count} * kSecond);
  return 0;
}
