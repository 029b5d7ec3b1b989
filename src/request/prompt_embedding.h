#ifndef HOTLORA_SRC_REQUEST_PROMPT_EMBEDDING_H_
#define HOTLORA_SRC_REQUEST_PROMPT_EMBEDDING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hotlora {

// Learned vectors in place of token embeddings (textual inversion, Gal et al. 2022, arXiv 2208.01618): `count` of them
// for each text encoder, one after the other, as wide as its token embeddings. Finite.
struct EmbeddingVectors {
  uint32_t count = 0;
  std::vector<float> first, second;
};

// Each place in a prompt that says `token` stands for the vectors.
struct PromptEmbedding {
  std::string token;
  std::shared_ptr<const EmbeddingVectors> vectors;
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_REQUEST_PROMPT_EMBEDDING_H_
