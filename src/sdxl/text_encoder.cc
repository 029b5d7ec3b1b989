#include "src/sdxl/text_encoder.h"

#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/stack.h>

namespace hotlora {
namespace {

// Where the text of one row ends. With eos_token_id 2, a value that old configs carry by mistake,
// transformers takes the largest id, which is the end token's.
int64_t EndPosition(const int64_t* ids, int64_t tokens, int64_t eos_token_id) {
  const int64_t* end =
      eos_token_id == 2 ? std::max_element(ids, ids + tokens) : std::find(ids, ids + tokens, eos_token_id);
  return end == ids + tokens ? 0 : end - ids;
}

}  // namespace

TextEncoder::TextEncoder(const ParameterScope& scope, const TextEncoderConfig& config) : config_(config) {
  const ParameterScope model = scope.In("text_model");
  token_embedding_ = model.Take("embeddings.token_embedding.weight", {config.vocab_size, config.width});
  position_embedding_ = model.Take("embeddings.position_embedding.weight", {config.positions, config.width});
  for (int64_t i = 0; i < config.layers; ++i) {
    layers_.emplace_back(model.In("encoder.layers", i), config);
  }
  final_layer_norm_ = LayerNorm(model.In("final_layer_norm"), config.width, config.layer_norm_epsilon);
  if (config.projection > 0) {
    text_projection_ = Linear(scope.In("text_projection"), config.width, config.projection, Linear::Bias::kNone);
  }
}

TextEncoding TextEncoder::forward(const at::Tensor& ids, c10::ArrayRef<int64_t> clip_skips, SideBranch side,
                                  c10::ArrayRef<SplicedVectors> spliced) const {
  const int64_t rows = ids.size(0);
  TORCH_CHECK(clip_skips.size() == 1 || clip_skips.size() == rows, clip_skips.size(), " clip_skips for ", rows,
              " rows");
  for (const int64_t clip_skip : clip_skips) {
    TORCH_CHECK(clip_skip >= 0 && clip_skip < config_.layers, "clip_skip must be 0 to ", config_.layers - 1, ", got ",
                clip_skip);
  }
  const int64_t least_skip = *std::min_element(clip_skips.begin(), clip_skips.end());
  const int64_t needed = config_.projection > 0 ? config_.layers : config_.layers - 1 - least_skip;
  at::Tensor h = Embed(ids, spliced);  // [rows, tokens, width]
  std::vector<at::Tensor> hidden(clip_skips.size());
  // Keeps what the layers before `layers_run` put out for the rows that want it.
  const auto take = [&](int64_t layers_run) {
    for (size_t i = 0; i < clip_skips.size(); ++i) {
      if (config_.layers - 1 - clip_skips[i] == layers_run) {
        hidden[i] = clip_skips.size() == 1 ? h : h.narrow(0, static_cast<int64_t>(i), 1);
      }
    }
  };
  for (int64_t i = 0; i < needed; ++i) {
    take(i);
    h = layers_[i].forward(h, config_, side);
  }
  take(needed);
  TextEncoding encoding;
  encoding.hidden = hidden.size() == 1 ? hidden.front() : at::cat(hidden);
  if (config_.projection > 0) {
    encoding.pooled = Pool(h, ids, side);
  }
  return encoding;
}

at::Tensor TextEncoder::Embed(const at::Tensor& ids, c10::ArrayRef<SplicedVectors> spliced) const {
  TORCH_CHECK(ids.dim() == 2 && ids.size(1) <= config_.positions, "ids must be [rows, at most ", config_.positions,
              "], got ", ids.sizes());
  // An index outside the table would end a CUDA context, so it is caught here.
  const at::Tensor contiguous = ids.contiguous();
  const int64_t* data = contiguous.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < contiguous.numel(); ++i) {
    TORCH_CHECK(data[i] >= 0 && data[i] < config_.vocab_size, "token id ", data[i], " outside the vocabulary of ",
                config_.vocab_size);
  }
  const at::Tensor tokens = at::embedding(token_embedding_, contiguous.to(token_embedding_.device()));
  for (const SplicedVectors& one : spliced) {
    tokens[one.row].narrow(0, one.position, one.vectors.size(0)).copy_(one.vectors);
  }
  return tokens + position_embedding_.narrow(0, 0, ids.size(1));
}

at::Tensor TextEncoder::Pool(const at::Tensor& hidden, const at::Tensor& ids, SideBranch side) const {
  const at::Tensor contiguous = ids.contiguous();
  const int64_t* data = contiguous.const_data_ptr<int64_t>();
  const int64_t tokens = ids.size(1);
  std::vector<at::Tensor> ends;
  for (int64_t row = 0; row < ids.size(0); ++row) {
    ends.push_back(hidden[row][EndPosition(data + row * tokens, tokens, config_.eos_token_id)]);
  }
  return text_projection_.forward(final_layer_norm_.forward(at::stack(ends)), side);  // [rows, projection]
}

}  // namespace hotlora
