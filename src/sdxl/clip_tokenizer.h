#ifndef HOTLORA_SRC_SDXL_CLIP_TOKENIZER_H_
#define HOTLORA_SRC_SDXL_CLIP_TOKENIZER_H_

// Prompt to token ids, exactly as the published SDXL checkpoints were trained. No LibTorch here.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "src/sdxl/clip_tokenizer_files.h"

namespace hotlora {

// CLIP's byte-pair encoding, in the behaviour of Hugging Face's Rust tokenizer:
//
//   1. Added tokens (begin, end, pad, and others that the files add) are cut out of the raw text.
//   2. The text between them is brought to NFC and to lower case, character by character: a Greek final sigma stays as
//      written.
//   3. It is split into pieces: 's 't 're 've 'm 'll 'd, a run of letters, one digit, a run of anything else. White
//      space only separates pieces.
//   4. The UTF-8 bytes of a piece, the last one marked as the word's end, are merged pair by pair in the order of the
//      merges.
//
// In SDXL's second tokenizer "!" is the pad token and therefore special: each one in a prompt
// becomes id 0 and splits the text around it. In the first it is text.
//
// A piece of n bytes takes O(n log n), whatever it consists of. Immutable, thread-safe.
//
// Source   Radford et al. 2021 (CLIP), openai/CLIP clip/simple_tokenizer.py; transformers
//          models/clip/tokenization_clip.py
class ClipTokenizer {
 public:
  static constexpr size_t kPaddedLength = 77;  // what the text encoders take: max_position_embeddings

  // Reads a tokenizer's folder: see ReadClipTokenizerFiles. FailedPrecondition names the file, with the
  // folder's name before it, and what is wrong with it.
  static absl::StatusOr<std::unique_ptr<ClipTokenizer>> Load(const std::string& folder);

  // With CLIP's vocabulary, which every published SDXL checkpoint has, from inside the program. The pad token is
  // "<|endoftext|>" for SDXL's first tokenizer and "!" for the second.
  static absl::StatusOr<std::unique_ptr<ClipTokenizer>> LoadClip(absl::string_view pad_token);

  // The whole text's ids between begin and end. InvalidArgument if it is not UTF-8.
  absl::StatusOr<std::vector<int64_t>> Encode(absl::string_view text) const;

  // kPaddedLength ids: the text cut to 75 tokens, between begin and end, then pad ids. Errors as
  // Encode.
  absl::StatusOr<std::vector<int64_t>> EncodePaddedForTest(absl::string_view text) const;

  size_t vocabulary_size() const { return vocabulary_size_; }
  int64_t begin_id() const { return begin_id_; }
  int64_t end_id() const { return end_id_; }
  int64_t pad_id() const { return pad_id_; }

 private:
  struct Merge {
    int32_t rank;  // lower ones first
    int32_t id;    // of the merged token
  };

  ClipTokenizer() = default;
  static absl::StatusOr<std::unique_ptr<ClipTokenizer>> Build(ClipTokenizerFiles files);
  absl::Status SetBytes(const ClipTokenizerFiles& files);

  // The added token that `text` begins with, the longest of several; nullptr if it begins with none.
  const AddedToken* AddedAt(absl::string_view text) const;
  absl::Status AppendText(absl::string_view text, std::vector<int64_t>& ids) const;
  void AppendWord(absl::string_view word, std::vector<int64_t>& ids) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;

  size_t vocabulary_size_ = 0;
  int32_t begin_id_ = 0, end_id_ = 0, pad_id_ = 0;
  std::vector<AddedToken> added_;                // longest first
  std::array<int32_t, 256> byte_ids_{};          // of each byte inside a word
  std::array<int32_t, 256> last_byte_ids_{};     // of each byte at a word's end
  absl::flat_hash_map<uint64_t, Merge> merges_;  // by left id << 32 | right id
};

}  // namespace hotlora

#endif  // HOTLORA_SRC_SDXL_CLIP_TOKENIZER_H_
