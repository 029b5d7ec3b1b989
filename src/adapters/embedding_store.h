#ifndef HOTLORA_SRC_ADAPTERS_EMBEDDING_STORE_H_
#define HOTLORA_SRC_ADAPTERS_EMBEDDING_STORE_H_

// Textual-inversion embeddings, found by name in a folder and read for the request that names them; nothing is kept. No
// LibTorch here.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/request/prompt_embedding.h"

namespace hotlora {

class SafetensorsFile;

// How wide the token embeddings of the two text encoders are: 768 and 1280 with SDXL.
struct EmbeddingWidths {
  int64_t first = 768, second = 1280;
};

struct Embedding {
  std::string name, content_sha256;
  std::shared_ptr<const EmbeddingVectors> vectors;
};

struct EmbeddingStoreOptions {
  std::string directory;      // --embeddings; empty: there are none
  bool follow_links = false;  // --embeddings-follow-links: links may leave the directory
  EmbeddingWidths widths;
};

// Thread-safe. Read takes as long as reading the file does: the engine's adapter thread calls it.
class EmbeddingStore {
 public:
  virtual ~EmbeddingStore() = default;

  // InvalidArgument if the directory does not exist.
  static absl::StatusOr<std::unique_ptr<EmbeddingStore>> Create(const EmbeddingStoreOptions& options);

  // `a/b` is the file `a/b.safetensors`, found by AdapterDirectory's rules.
  //   NotFound             EMBEDDING_NOT_FOUND: no file of that name, or a name that none can have
  //   FailedPrecondition   EMBEDDING_INVALID, EMBEDDING_MISMATCH: as ParseEmbedding
  virtual absl::StatusOr<Embedding> Read(absl::string_view name) const = 0;
};

// The vectors for both encoders. Known are the keys clip_l and clip_g (kohya, AUTOMATIC1111, ComfyUI, OneTrainer) and
// text_encoders_0 and text_encoders_1 (diffusers' pivotal tuning): [vectors, width], or [width] for one; at most
// kMaxEmbeddingVectors, as many for the one as for the other.
//   FailedPrecondition   EMBEDDING_INVALID: another dtype than F32, F16, BF16, F64, values that are not finite, shapes
//                        that disagree; keys that are not known, among them OneTrainer's output vectors
//                        EMBEDDING_MISMATCH: of another width than the model's, or of one encoder alone
inline constexpr int64_t kMaxEmbeddingVectors = 75;  // a chunk
absl::StatusOr<EmbeddingVectors> ParseEmbedding(const SafetensorsFile& file, const EmbeddingWidths& widths);

}  // namespace hotlora

#endif  // HOTLORA_SRC_ADAPTERS_EMBEDDING_STORE_H_
