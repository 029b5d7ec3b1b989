#ifndef HOTLORA_SRC_WEIGHTS_TOKENIZER_FILES_H_
#define HOTLORA_SRC_WEIGHTS_TOKENIZER_FILES_H_

// The names of the files in a checkpoint's tokenizer folder. src/sdxl/clip_tokenizer_files.h says what each is for.

namespace hotlora::tokenizer_file {

inline constexpr char kVocabulary[] = "vocab.json";
inline constexpr char kMerges[] = "merges.txt";
inline constexpr char kWhole[] = "tokenizer.json";
inline constexpr char kSpecialTokens[] = "special_tokens_map.json";
inline constexpr char kTokenizerConfig[] = "tokenizer_config.json";
inline constexpr char kAddedTokens[] = "added_tokens.json";

inline constexpr const char* kAll[] = {kVocabulary, kMerges, kWhole, kSpecialTokens, kTokenizerConfig, kAddedTokens};

}  // namespace hotlora::tokenizer_file

#endif  // HOTLORA_SRC_WEIGHTS_TOKENIZER_FILES_H_
