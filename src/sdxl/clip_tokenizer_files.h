#ifndef HOTLORA_SRC_SDXL_CLIP_TOKENIZER_FILES_H_
#define HOTLORA_SRC_SDXL_CLIP_TOKENIZER_FILES_H_

// The files of a CLIP tokenizer, in both layouts that transformers writes. No LibTorch here.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

// CLIP's own begin and end token.
inline constexpr absl::string_view kClipBegin = "<|startoftext|>";
inline constexpr absl::string_view kClipEnd = "<|endoftext|>";

// A token that is cut out of the raw text before anything else.
struct AddedToken {
  std::string text;
  int32_t id = 0;
  bool any_case = false;  // also matches in another (ASCII) case: what transformers calls "normalized"
};

// Two neighbouring tokens become one.
struct TokenMerge {
  int32_t left = 0, right = 0, merged = 0;
};

struct ClipTokenizerFiles {
  std::string vocabulary_file;                           // what messages call it
  absl::flat_hash_map<std::string, int32_t> vocabulary;  // ids 0 to size - 1, once each, added tokens included
  std::vector<TokenMerge> merges;                        // the first to be merged first
  std::vector<AddedToken> added;                         // begin, end, pad (never in another case), then the rest
  int32_t begin_id = 0, end_id = 0, pad_id = 0;
};

// Reads a tokenizer's folder. Vocabulary and merges:
//
//   vocab.json, merges.txt   if both are there (transformers 4, diffusers' published folders)
//   tokenizer.json           else (transformers 5 writes nothing else): its model's vocab and merges, as pairs or as
//                            "a b". Everything in it that shapes tokens must be CLIP's: byte-pair encoding with "</w>",
//                            NFC and lower case, CLIP's pieces, begin and end around the text
//
// Begin, end and pad token: special_tokens_map.json, tokenizer_config.json, tokenizer.json's padding, the first that
// says so; CLIP's own if none does. Further added tokens: tokenizer.json, tokenizer_config.json's added_tokens_decoder,
// added_tokens.json.
//
// FailedPrecondition names the file (by its name in the folder), the key and the value that is missing or wrong.
//
// Source   transformers 5.24 (tokenizer.json), tokenizers 0.23
absl::StatusOr<ClipTokenizerFiles> ReadClipTokenizerFiles(const std::string& folder);

// Files' contents, by their names in the folder.
using TextByName = std::map<std::string, std::string>;

// The same, of files in memory.
absl::StatusOr<ClipTokenizerFiles> ParseClipTokenizerFiles(const TextByName& texts);

// CLIP's own, from inside the program.
absl::StatusOr<ClipTokenizerFiles> OwnClipTokenizerFiles(absl::string_view pad_token);

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CLIP_TOKENIZER_FILES_H_
