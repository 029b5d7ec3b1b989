#include "src/pipeline/prompt_encoder.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/base/status_macros.h"
#include "src/request/weighted_prompt.h"
#include "src/sdxl/clip_tokenizer.h"
#include "src/sdxl/text_encoder.h"

namespace hotlora {
namespace {

constexpr size_t kLength = ClipTokenizer::kPaddedLength;
constexpr size_t kTextTokens = kLength - 2;  // between begin and end

// One of the two encoders, and which of an embedding's vectors are for it.
struct EncoderSide {
  const TextEncoder& encoder;
  const ClipTokenizer& tokenizer;
  std::vector<float> EmbeddingVectors::*values;
};

// An embedding's vectors from `place` on, counted in tokens over all chunks; fewer than it has if they are cut off.
struct PlacedVectors {
  size_t place, count;
  std::shared_ptr<const EmbeddingVectors> vectors;
};

// A text for one encoder: kLength ids and weights for each chunk, one chunk after the other.
struct Tokens {
  std::vector<int64_t> ids;
  std::vector<float> weights;
  std::vector<PlacedVectors> placed;

  size_t chunks() const { return ids.size() / kLength; }
};

// Adds a chunk of these tokens, at most kTextTokens.
void AppendChunk(const ClipTokenizer& tokenizer, const std::vector<int64_t>& ids, const std::vector<float>& weights,
                 Tokens& tokens) {
  const size_t end = tokens.ids.size() + kLength;
  tokens.ids.push_back(tokenizer.begin_id());
  tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
  tokens.ids.push_back(tokenizer.end_id());
  tokens.ids.resize(end, tokenizer.pad_id());
  tokens.weights.push_back(1.0f);
  tokens.weights.insert(tokens.weights.end(), weights.begin(), weights.end());
  tokens.weights.resize(end, 1.0f);
}

// Fills chunks with one text's tokens. If there may be only one chunk, what does not fit is dropped.
class ChunkWriter {
 public:
  ChunkWriter(const ClipTokenizer& tokenizer, bool many) : tokenizer_(tokenizer), many_(many) {}

  void Add(int64_t id, float weight) {
    if (MakeRoom(1) > 0) {
      ids_.push_back(id);
      weights_.push_back(weight);
    }
  }

  void Add(const std::shared_ptr<const EmbeddingVectors>& vectors, float weight) {
    const size_t count = std::min<size_t>(vectors->count, MakeRoom(vectors->count));
    tokens_.placed.push_back({tokens_.ids.size() + 1 + ids_.size(), count, vectors});
    ids_.resize(ids_.size() + count, 0);  // any id but the end's: its embedding is not taken
    weights_.resize(ids_.size(), weight);
  }

  // Also a chunk without tokens.
  void EndChunk() {
    AppendChunk(tokenizer_, ids_, weights_, tokens_);
    ids_.clear();
    weights_.clear();
  }

  // At least one chunk; the last one not empty if there are more.
  Tokens Take() && {
    if (!ids_.empty() || tokens_.ids.empty()) {
      EndChunk();
    }
    return std::move(tokens_);
  }

 private:
  // Begins another chunk where this one has no room for so many tokens and there may be more; what room there is then.
  size_t MakeRoom(size_t count) {
    if (many_ && ids_.size() + count > kTextTokens) {
      EndChunk();
    }
    return kTextTokens - ids_.size();
  }

  const ClipTokenizer& tokenizer_;
  const bool many_;
  std::vector<int64_t> ids_;  // of the chunk that is being filled
  std::vector<float> weights_;
  Tokens tokens_;
};

// Adds text of one weight, its embeddings as vectors.
absl::Status WriteText(const ClipTokenizer& tokenizer, const std::string& text, float weight,
                       const std::vector<PromptEmbedding>& embeddings, ChunkWriter& writer) {
  std::vector<std::string> words;
  for (const PromptEmbedding& embedding : embeddings) {
    words.push_back(embedding.token);
  }
  for (const WordPiece& piece : SplitAtWords(text, words)) {
    if (piece.word.has_value()) {
      writer.Add(embeddings[*piece.word].vectors, weight);
      continue;
    }
    ABSL_ASSIGN_OR_RETURN(const std::vector<int64_t> framed, tokenizer.Encode(piece.text));
    for (size_t i = 1; i + 1 < framed.size(); ++i) {
      writer.Add(framed[i], weight);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PromptPiece>> PiecesOf(const std::string& text, const Prompts& prompts) {
  if (prompts.weighted) {
    return ParseEmphasis(text, prompts.long_prompts);
  }
  std::vector<PromptPiece> pieces;
  for (std::string& part : prompts.long_prompts ? SplitAtBreaks(text) : std::vector<std::string>{text}) {
    if (!pieces.empty()) {
      pieces.push_back({"", 1.0, true});
    }
    pieces.push_back({std::move(part), 1.0, false});
  }
  return pieces;
}

absl::StatusOr<Tokens> Tokenize(const ClipTokenizer& tokenizer, const std::string& text, const Prompts& prompts) {
  ChunkWriter writer(tokenizer, prompts.long_prompts);
  ABSL_ASSIGN_OR_RETURN(const std::vector<PromptPiece> pieces, PiecesOf(text, prompts));
  for (const PromptPiece& piece : pieces) {
    if (piece.is_break) {
      writer.EndChunk();
      continue;
    }
    ABSL_RETURN_IF_ERROR(
        WriteText(tokenizer, piece.text, static_cast<float>(piece.weight), prompts.embeddings, writer));
  }
  Tokens tokens = std::move(writer).Take();
  if (tokens.chunks() > kMaxChunks) {
    return MakeError(absl::StatusCode::kInvalidArgument, error_reason::kPromptTooLong,
                     absl::StrCat("a prompt takes ", tokens.chunks(), " chunks of ", kTextTokens,
                                  " tokens; allowed are at most ", kMaxChunks));
  }
  return tokens;
}

// The positive or the negative text for each encoder.
struct SideTokens {
  Tokens first, second;

  size_t chunks() const { return std::max(first.chunks(), second.chunks()); }
};

// Texts through one encoder as one batch, each as `chunks` chunks, the ones that are missing empty; with a clip_skip of
// its own.
std::vector<TextEncoding> Encode(const EncoderSide& side, std::vector<Tokens> texts, size_t chunks,
                                 const std::vector<int64_t>& clip_skips, const SideTable* adapters) {
  std::vector<int64_t> ids, skips;
  std::vector<float> weights;
  std::vector<SplicedVectors> spliced;
  for (size_t i = 0; i < texts.size(); ++i) {
    Tokens& tokens = texts[i];
    while (tokens.chunks() < chunks) {
      AppendChunk(side.tokenizer, {}, {}, tokens);
    }
    for (const PlacedVectors& placed : tokens.placed) {
      const size_t place = ids.size() + placed.place;
      const auto count = static_cast<int64_t>(placed.vectors->count);
      spliced.push_back({static_cast<int64_t>(place / kLength), static_cast<int64_t>(place % kLength),
                         at::tensor((*placed.vectors).*side.values)
                             .view({count, -1})
                             .narrow(0, 0, static_cast<int64_t>(placed.count))});
    }
    ids.insert(ids.end(), tokens.ids.begin(), tokens.ids.end());
    weights.insert(weights.end(), tokens.weights.begin(), tokens.weights.end());
    skips.insert(skips.end(), chunks, clip_skips[i]);
  }
  const auto rows = static_cast<int64_t>(skips.size());
  const SideRows all{0, rows, adapters};
  TextEncoding together = side.encoder.forward(at::tensor(ids).view({rows, -1}), skips,
                                               adapters == nullptr ? SideBranch() : SideBranch(&all, 1), spliced);
  if (std::any_of(weights.begin(), weights.end(), [](float weight) { return weight != 1.0f; })) {
    const at::Tensor by_token = at::tensor(weights).view({rows, -1, 1});  // [rows, tokens, 1]
    together.hidden =
        (together.hidden.to(at::kFloat) * by_token.to(together.hidden.device())).to(together.hidden.dtype());
  }
  std::vector<TextEncoding> encodings;
  for (int64_t first = 0; first < rows; first += static_cast<int64_t>(chunks)) {
    const at::Tensor hidden = together.hidden.narrow(0, first, static_cast<int64_t>(chunks));
    encodings.push_back({hidden.reshape({1, static_cast<int64_t>(chunks * kLength), -1}),
                         together.pooled.defined() ? together.pooled.narrow(0, first, 1) : at::Tensor()});
  }
  return encodings;
}

// A request's prompts on their way through both encoders.
class PromptEncoder {
 public:
  PromptEncoder(const SdxlModel& model, const Prompts& prompts, const SideTable* adapters)
      : prompts_(prompts),
        adapters_(adapters),
        first_{model.text_encoder(), model.tokenizer(), &EmbeddingVectors::first},
        second_{model.text_encoder_2(), model.tokenizer_2(), &EmbeddingVectors::second} {}

  absl::StatusOr<SideTokens> TokenizeSide(const std::string& text, const std::string& text_2) const {
    SideTokens side;
    ABSL_ASSIGN_OR_RETURN(side.first, Tokenize(first_.tokenizer, text, prompts_));
    ABSL_ASSIGN_OR_RETURN(side.second, Tokenize(second_.tokenizer, text_2, prompts_));
    return side;
  }

  // The sides, each with its clip_skip, as one batch.
  std::vector<TextSide> EncodeSides(std::vector<SideTokens> sides, const std::vector<int64_t>& clip_skips) const {
    size_t chunks = 0;
    std::vector<Tokens> first_texts, second_texts;
    for (SideTokens& side : sides) {
      chunks = std::max(chunks, side.chunks());
      first_texts.push_back(std::move(side.first));
      second_texts.push_back(std::move(side.second));
    }
    const std::vector<TextEncoding> first = Encode(first_, std::move(first_texts), chunks, clip_skips, adapters_);
    const std::vector<TextEncoding> second = Encode(second_, std::move(second_texts), chunks, clip_skips, adapters_);
    std::vector<TextSide> encoded;
    for (size_t i = 0; i < first.size(); ++i) {
      encoded.push_back({at::cat({first[i].hidden, second[i].hidden}, -1), second[i].pooled});
    }
    return encoded;
  }

 private:
  const Prompts& prompts_;
  const SideTable* const adapters_;  // beside the weights; nullptr: none
  const EncoderSide first_, second_;
};

}  // namespace

absl::StatusOr<EncodedPrompts> EncodePrompts(const SdxlModel& model, const Prompts& prompts, bool negative,
                                             const SideTable* side) {
  const PromptEncoder encoder(model, prompts, side);
  std::vector<SideTokens> sides(1);
  std::vector<int64_t> clip_skips = {prompts.clip_skip};
  ABSL_ASSIGN_OR_RETURN(sides.front(), encoder.TokenizeSide(prompts.prompt, prompts.prompt_2));
  const bool zeros = !prompts.negative_prompt.has_value() && model.config().force_zeros_for_empty_prompt;
  if (negative && !zeros) {
    ABSL_ASSIGN_OR_RETURN(sides.emplace_back(),
                          encoder.TokenizeSide(prompts.negative_prompt.value_or(""), prompts.negative_prompt_2));
    clip_skips.push_back(0);
  }
  const std::vector<TextSide> encoded = encoder.EncodeSides(std::move(sides), clip_skips);
  const TextSide& positive = encoded.front();
  if (!negative) {
    return EncodedPrompts{positive, {}};
  }
  return EncodedPrompts{
      positive, zeros ? TextSide{at::zeros_like(positive.hidden), at::zeros_like(positive.pooled)} : encoded.back()};
}

}  // namespace hotlora
