// A tokenizer's files: any text as each of them, and as all of them.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "src/sdxl/clip_tokenizer_files.h"

namespace {

void Parse(const hotlora::TextByName& texts) {
  const auto files = hotlora::ParseClipTokenizerFiles(texts);
  if (!files.ok()) {
    return;
  }
  const auto size = static_cast<int32_t>(files->vocabulary.size());
  const auto is_id = [size](int32_t id) { return id >= 0 && id < size; };
  bool sound = is_id(files->begin_id) && is_id(files->end_id) && is_id(files->pad_id);
  for (const hotlora::TokenMerge& merge : files->merges) {
    sound = sound && is_id(merge.left) && is_id(merge.right) && is_id(merge.merged);
  }
  for (const hotlora::AddedToken& token : files->added) {
    sound = sound && is_id(token.id) && !token.text.empty();
  }
  if (!sound) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::string vocabulary = R"({"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "b": 3, "ab": 4})";
  Parse({{"tokenizer.json", text}});
  Parse({{"tokenizer.json", text}, {"tokenizer_config.json", text}, {"added_tokens.json", text}});
  Parse({{"vocab.json", text}, {"merges.txt", "a b\n"}});
  Parse({{"vocab.json", vocabulary}, {"merges.txt", text}});
  for (const char* const name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}) {
    Parse({{"vocab.json", vocabulary}, {"merges.txt", "a b\n"}, {name, text}});
  }
  return 0;
}
