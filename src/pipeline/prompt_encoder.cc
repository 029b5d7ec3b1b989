#include "src/pipeline/prompt_encoder.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "src/base/error_details.h"
#include "src/base/status_macros.h"
#include "src/sdxl/clip_tokenizer.h"
#include "src/sdxl/text_encoder.h"
#include "src/sdxl/weighted_prompt.h"

namespace hotlora {
namespace {

constexpr size_t kLength = ClipTokenizer::kPaddedLength;
constexpr size_t kTextTokens = kLength - 2;  // between begin and end

// A text for one encoder: kLength ids and weights for each chunk, one chunk after the other.
struct Tokens {
  std::vector<int64_t> ids;
  std::vector<float> weights;

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

// Fills chunks with one text's tokens. Where there may be only one chunk, what does not fit is dropped.
class ChunkWriter {
 public:
  ChunkWriter(const ClipTokenizer& tokenizer, bool many) : tokenizer_(tokenizer), many_(many) {}

  void Add(int64_t id, float weight) {
    if (ids_.size() == kTextTokens) {
      if (!many_) {
        return;
      }
      EndChunk();
    }
    ids_.push_back(id);
    weights_.push_back(weight);
  }

  // Also a chunk without tokens.
  void EndChunk() {
    AppendChunk(tokenizer_, ids_, weights_, tokens_);
    ids_.clear();
    weights_.clear();
  }

  // At least one chunk; the last one not empty where there are more.
  Tokens Take() && {
    if (!ids_.empty() || tokens_.ids.empty()) {
      EndChunk();
    }
    return std::move(tokens_);
  }

 private:
  const ClipTokenizer& tokenizer_;
  const bool many_;
  std::vector<int64_t> ids_;  // of the chunk that is being filled
  std::vector<float> weights_;
  Tokens tokens_;
};

absl::StatusOr<Tokens> Tokenize(const ClipTokenizer& tokenizer, const std::string& text, const Prompts& prompts) {
  ChunkWriter writer(tokenizer, prompts.long_prompts);
  const std::vector<PromptPiece> pieces =
      prompts.weighted ? ParseEmphasis(text) : std::vector<PromptPiece>{{text, 1.0}};
  for (const PromptPiece& piece : pieces) {
    const std::vector<std::string> parts =
        prompts.long_prompts ? SplitAtBreaks(piece.text) : std::vector<std::string>{piece.text};
    for (size_t part = 0; part < parts.size(); ++part) {
      if (part > 0) {
        writer.EndChunk();
      }
      ABSL_ASSIGN_OR_RETURN(const std::vector<int64_t> framed, tokenizer.Encode(parts[part]));
      for (size_t i = 1; i + 1 < framed.size(); ++i) {
        writer.Add(framed[i], static_cast<float>(piece.weight));
      }
    }
  }
  Tokens tokens = std::move(writer).Take();
  if (tokens.chunks() > kMaxChunks) {
    return MakeError(absl::StatusCode::kInvalidArgument, "PROMPT_TOO_LONG",
                     absl::StrCat("a prompt takes ", tokens.chunks(), " chunks of ", kTextTokens,
                                  " tokens; allowed are at most ", kMaxChunks));
  }
  return tokens;
}

// A side's text for each encoder.
struct SideTokens {
  Tokens first, second;
};

absl::StatusOr<SideTokens> TokenizeSide(const SdxlModel& model, const std::string& text, const std::string& text_2,
                                        const Prompts& prompts) {
  SideTokens side;
  ABSL_ASSIGN_OR_RETURN(side.first, Tokenize(model.tokenizer(), text, prompts));
  ABSL_ASSIGN_OR_RETURN(side.second, Tokenize(model.tokenizer_2(), text_2, prompts));
  return side;
}

// `chunks` of them, the ones that are missing empty.
TextEncoding Encode(const TextEncoder& encoder, const ClipTokenizer& tokenizer, Tokens tokens, size_t chunks,
                    uint32_t clip_skip, const SideTable* side) {
  while (tokens.chunks() < chunks) {
    AppendChunk(tokenizer, {}, {}, tokens);
  }
  const auto rows = static_cast<int64_t>(chunks);
  const SideRows all{0, rows, side};
  TextEncoding encoding = encoder.forward(at::tensor(tokens.ids).view({rows, -1}), clip_skip,
                                          side == nullptr ? SideBranch() : SideBranch(&all, 1));
  if (std::any_of(tokens.weights.begin(), tokens.weights.end(), [](float weight) { return weight != 1.0f; })) {
    const at::Tensor weights = at::tensor(tokens.weights).view({rows, -1, 1});  // [chunks, tokens, 1]
    encoding.hidden =
        (encoding.hidden.to(at::kFloat) * weights.to(encoding.hidden.device())).to(encoding.hidden.dtype());
  }
  encoding.hidden = encoding.hidden.reshape({1, rows * static_cast<int64_t>(kLength), -1});
  if (encoding.pooled.defined()) {
    encoding.pooled = encoding.pooled.narrow(0, 0, 1);
  }
  return encoding;
}

TextSide EncodeSide(const SdxlModel& model, SideTokens side, size_t chunks, uint32_t clip_skip,
                    const SideTable* adapters) {
  const TextEncoding first =
      Encode(model.text_encoder(), model.tokenizer(), std::move(side.first), chunks, clip_skip, adapters);
  const TextEncoding second =
      Encode(model.text_encoder_2(), model.tokenizer_2(), std::move(side.second), chunks, clip_skip, adapters);
  return {at::cat({first.hidden, second.hidden}, -1), second.pooled};
}

size_t ChunksOf(const SideTokens& side) { return std::max(side.first.chunks(), side.second.chunks()); }

}  // namespace

absl::StatusOr<EncodedPrompts> EncodePrompts(const SdxlModel& model, const Prompts& prompts, bool negative,
                                             const SideTable* side) {
  EncodedPrompts encoded;
  ABSL_ASSIGN_OR_RETURN(SideTokens positive, TokenizeSide(model, prompts.prompt, prompts.prompt_2, prompts));
  size_t chunks = ChunksOf(positive);
  const bool zeros = !prompts.negative_prompt.has_value() && model.config().force_zeros_for_empty_prompt;
  if (!negative || zeros) {
    encoded.positive = EncodeSide(model, std::move(positive), chunks, prompts.clip_skip, side);
    if (negative) {
      encoded.negative = {at::zeros_like(encoded.positive.hidden), at::zeros_like(encoded.positive.pooled)};
    }
    return encoded;
  }
  ABSL_ASSIGN_OR_RETURN(SideTokens against,
                        TokenizeSide(model, prompts.negative_prompt.value_or(""), prompts.negative_prompt_2, prompts));
  chunks = std::max(chunks, ChunksOf(against));
  encoded.positive = EncodeSide(model, std::move(positive), chunks, prompts.clip_skip, side);
  encoded.negative = EncodeSide(model, std::move(against), chunks, 0, side);
  return encoded;
}

}  // namespace hotlora
