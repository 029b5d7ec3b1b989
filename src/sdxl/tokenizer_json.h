#ifndef HOTLORA_SRC_SDXL_TOKENIZER_JSON_H_
#define HOTLORA_SRC_SDXL_TOKENIZER_JSON_H_

// Whether a tokenizer.json (the format of Hugging Face's tokenizers) describes CLIP's tokenizer. Messages follow the
// file's name. No LibTorch here.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <nlohmann/json.hpp>

#include "src/sdxl/clip_tokenizer_files.h"

namespace hotlora {

// FailedPrecondition if the model is not byte-pair encoding with an object `vocab`, an array `merges` and "</w>" at a
// word's end, or if the normalizer or the pre-tokenizer is not CLIP's. "truncation" and "decoder" do not matter.
absl::Status CheckIsClip(const nlohmann::json& tokenizer);

// FailedPrecondition if the post-processor does not put these two ids around the text.
absl::Status CheckFrame(const nlohmann::json& tokenizer, int32_t begin_id, int32_t end_id);

// The list of added tokens under `key`; none if it is null. FailedPrecondition if an entry has no text or id, or asks
// for what CLIP's tokens do not do (single_word, lstrip, rstrip).
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(absl::string_view key, const nlohmann::json& tokens);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_TOKENIZER_JSON_H_
