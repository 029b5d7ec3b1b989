#include "src/sdxl/clip_tokenizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <queue>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "src/base/first_character.h"
#include "src/base/status_macros.h"
#include "src/sdxl/recent_unicode.h"

namespace hotlora {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

constexpr char kWordEnd[] = "</w>";

// The printable character that stands for `byte` in the vocabulary: itself if it is printable
// Latin-1, else the next free one from U+0100 on (GPT-2's table).
std::string ByteCharacter(int byte) {
  const auto printable = [](int value) {
    return (value >= '!' && value <= '~') || (value >= 0xA1 && value <= 0xAC) || value >= 0xAE;
  };
  int code_point = byte;
  if (!printable(byte)) {
    code_point = 0x100;
    for (int lower = 0; lower < byte; ++lower) {
      code_point += printable(lower) ? 0 : 1;
    }
  }
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(code_point, bytes);
  return std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
}

utf8proc_int32_t LowerCase(utf8proc_int32_t c) {
  for (const LowerCaseRange& range : kRecentLowerCase) {
    if (c >= range.first && c <= range.last) {
      return c + range.distance;
    }
  }
  return utf8proc_tolower(c);
}

// NFC, then lower case; false if `text` is not UTF-8.
bool Normalize(absl::string_view text, CodePoints& out) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  constexpr int kLongestDecomposition = 32;
  CodePoints decomposed;
  decomposed.reserve(text.size());
  while (!text.empty()) {
    utf8proc_int32_t code_point = 0;
    const auto taken = FirstCharacter(text, &code_point);
    if (taken <= 0) {
      return false;
    }
    text.remove_prefix(static_cast<size_t>(taken));
    utf8proc_int32_t parts[kLongestDecomposition];
    int boundary = 0;
    const auto count = utf8proc_decompose_char(code_point, parts, kLongestDecomposition, kOptions, &boundary);
    if (count < 0 || count > kLongestDecomposition) {
      return false;
    }
    decomposed.insert(decomposed.end(), parts, parts + count);
  }
  // Canonical order here and not by utf8proc_decompose, whose sort takes quadratic time on long
  // runs of marks.
  const auto mark_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto run = decomposed.begin(); run != decomposed.end();) {
    run = std::find_if(run, decomposed.end(), [&](auto c) { return mark_class(c) != 0; });
    const auto end = std::find_if(run, decomposed.end(), [&](auto c) { return mark_class(c) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return mark_class(a) < mark_class(b); });
    run = end;
  }
  const auto length =
      utf8proc_normalize_utf32(decomposed.data(), static_cast<utf8proc_ssize_t>(decomposed.size()), kOptions);
  decomposed.resize(static_cast<size_t>(std::max<utf8proc_ssize_t>(length, 0)));
  for (const utf8proc_int32_t c : decomposed) {
    out.push_back(LowerCase(c));
    if (c == 0x130) {
      out.back() = 'i';  // the one character whose lower case is two: "i" and a dot above
      out.push_back(0x307);
    }
  }
  return true;
}

template <size_t kCount>
bool Contains(const CodePointRange (&ranges)[kCount], utf8proc_int32_t c) {
  const auto* const after =
      std::upper_bound(std::begin(ranges), std::end(ranges), c,
                       [](utf8proc_int32_t value, const CodePointRange& range) { return value < range.first; });
  return after != std::begin(ranges) && c <= std::prev(after)->last;
}

enum class Kind { kSpace, kLetter, kNumber, kOther };

// As \s, \p{L}, \p{N} and the rest.
Kind KindOf(utf8proc_int32_t c) {
  if ((c >= 0x09 && c <= 0x0D) || c == 0x85) {
    return Kind::kSpace;
  }
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return Kind::kSpace;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return Kind::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return Kind::kNumber;
    default:
      return Contains(kRecentLetters, c) ? Kind::kLetter : Contains(kRecentNumbers, c) ? Kind::kNumber : Kind::kOther;
  }
}

bool BeginsWith(const CodePoints& text, size_t at, absl::string_view ascii) {
  return text.size() - at >= ascii.size() && std::equal(ascii.begin(), ascii.end(), text.begin() + at);
}

// A stretch of code points, from `begin` to before `end`.
struct Piece {
  size_t begin;
  size_t end;
};

// The piece that begins at `begin`. REQUIRES: no space there.
Piece PieceAt(const CodePoints& text, size_t begin) {
  for (const absl::string_view contraction : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (BeginsWith(text, begin, contraction)) {
      return {begin, begin + contraction.size()};
    }
  }
  const Kind kind = KindOf(text[begin]);
  size_t end = begin + 1;
  while (kind != Kind::kNumber && end < text.size() && KindOf(text[end]) == kind) {
    ++end;
  }
  return {begin, end};
}

std::vector<Piece> Split(const CodePoints& text) {
  std::vector<Piece> pieces;
  for (size_t at = 0; at < text.size();) {
    if (KindOf(text[at]) == Kind::kSpace) {
      ++at;
      continue;
    }
    // A special token that only lower case made ends the piece before and begins one of its own,
    // but is encoded as text.
    bool lowered = false;
    for (const absl::string_view special : {kClipBegin, kClipEnd}) {
      if (BeginsWith(text, at, special)) {
        const size_t end = at + special.size();
        pieces.insert(pieces.end(), {{at, at + 2}, {at + 2, end - 2}, {end - 2, end}});
        at = end;
        lowered = true;
        break;
      }
    }
    if (!lowered) {
      pieces.push_back(PieceAt(text, at));
      at = pieces.back().end;
    }
  }
  return pieces;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClipTokenizer>> ClipTokenizer::Load(const std::string& folder) {
  absl::StatusOr<ClipTokenizerFiles> files = ReadClipTokenizerFiles(folder);
  auto tokenizer = files.ok() ? Build(*std::move(files)) : files.status();
  if (!tokenizer.ok()) {
    const std::string name = std::filesystem::path(folder).filename();
    return absl::Status(tokenizer.status().code(), absl::StrCat(name, "/", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<ClipTokenizer>> ClipTokenizer::LoadClip(absl::string_view pad_token) {
  ABSL_ASSIGN_OR_RETURN(ClipTokenizerFiles files, OwnClipTokenizerFiles(pad_token));
  return Build(std::move(files));
}

absl::StatusOr<std::unique_ptr<ClipTokenizer>> ClipTokenizer::Build(ClipTokenizerFiles files) {
  std::unique_ptr<ClipTokenizer> tokenizer(new ClipTokenizer);
  tokenizer->vocabulary_size_ = files.vocabulary.size();
  tokenizer->begin_id_ = files.begin_id;
  tokenizer->end_id_ = files.end_id;
  tokenizer->pad_id_ = files.pad_id;
  ABSL_RETURN_IF_ERROR(tokenizer->SetBytes(files));
  tokenizer->merges_.reserve(files.merges.size());
  for (size_t rank = 0; rank < files.merges.size(); ++rank) {
    const TokenMerge& merge = files.merges[rank];
    const uint64_t key = static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right);
    tokenizer->merges_[key] = {static_cast<int32_t>(rank), merge.merged};
  }
  tokenizer->added_ = std::move(files.added);
  std::stable_sort(tokenizer->added_.begin(), tokenizer->added_.end(),
                   [](const auto& a, const auto& b) { return a.text.size() > b.text.size(); });
  return tokenizer;
}

absl::Status ClipTokenizer::SetBytes(const ClipTokenizerFiles& files) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string character = ByteCharacter(byte);
    const auto inside = files.vocabulary.find(character);
    const auto last = files.vocabulary.find(absl::StrCat(character, kWordEnd));
    if (inside == files.vocabulary.end() || last == files.vocabulary.end()) {
      return absl::FailedPreconditionError(absl::StrCat(files.vocabulary_file, " lacks byte ", byte));
    }
    byte_ids_[byte] = inside->second;
    last_byte_ids_[byte] = last->second;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int64_t>> ClipTokenizer::Encode(absl::string_view text) const {
  std::vector<int64_t> ids = {begin_id_};
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const AddedToken* const special = AddedAt(text.substr(at));
    if (special == nullptr) {
      ++at;
      continue;
    }
    ABSL_RETURN_IF_ERROR(AppendText(text.substr(begin, at - begin), ids));
    ids.push_back(special->id);
    at += special->text.size();
    begin = at;
  }
  ABSL_RETURN_IF_ERROR(AppendText(text.substr(begin), ids));
  ids.push_back(end_id_);
  return ids;
}

absl::StatusOr<std::vector<int64_t>> ClipTokenizer::EncodePaddedForTest(absl::string_view text) const {
  ABSL_ASSIGN_OR_RETURN(std::vector<int64_t> ids, Encode(text));
  if (ids.size() > kPaddedLength) {
    ids.resize(kPaddedLength - 1);
    ids.push_back(end_id_);
  }
  ids.resize(kPaddedLength, pad_id_);
  return ids;
}

const AddedToken* ClipTokenizer::AddedAt(absl::string_view text) const {
  for (const AddedToken& added : added_) {
    if (added.any_case ? absl::StartsWithIgnoreCase(text, added.text) : absl::StartsWith(text, added.text)) {
      return &added;
    }
  }
  return nullptr;
}

absl::Status ClipTokenizer::AppendText(absl::string_view text, std::vector<int64_t>& ids) const {
  CodePoints characters;
  if (!Normalize(text, characters)) {
    return absl::InvalidArgumentError("the text is not UTF-8");
  }
  std::string word;
  for (const Piece& piece : Split(characters)) {
    word.clear();
    for (size_t at = piece.begin; at < piece.end; ++at) {
      utf8proc_uint8_t bytes[4];
      const auto length = utf8proc_encode_char(characters[at], bytes);
      word.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
    }
    AppendWord(word, ids);
  }
  return absl::OkStatus();
}

void ClipTokenizer::AppendWord(absl::string_view word, std::vector<int64_t>& ids) const {
  // A linked list of tokens, and a heap of the pairs that may be merged; pairs whose tokens changed
  // are skipped when they come up.
  constexpr int32_t kMerged = -1;
  struct Token {
    int32_t id;
    int previous, next;
  };
  struct Pair {
    int32_t rank;
    int position;
    int32_t id;
    bool operator<(const Pair& other) const { return std::tie(rank, position) > std::tie(other.rank, other.position); }
  };
  const int count = static_cast<int>(word.size());
  std::vector<Token> tokens(word.size());
  for (int i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[i]);
    tokens[i] = {i + 1 < count ? byte_ids_[byte] : last_byte_ids_[byte], i - 1, i + 1};
  }
  std::priority_queue<Pair> pairs;
  const auto offer = [&](int left) {
    if (left < 0 || tokens[left].next >= count) {
      return;
    }
    if (const Merge* const merge = FindMerge(tokens[left].id, tokens[tokens[left].next].id)) {
      pairs.push({merge->rank, left, merge->id});
    }
  };
  for (int i = 0; i < count; ++i) {
    offer(i);
  }
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    Token& left = tokens[pair.position];
    if (left.id == kMerged || left.next >= count) {
      continue;
    }
    Token& right = tokens[left.next];
    const Merge* const merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->id != pair.id) {
      continue;
    }
    left.id = merge->id;
    left.next = right.next;
    right.id = kMerged;
    if (left.next < count) {
      tokens[left.next].previous = pair.position;
    }
    offer(left.previous);
    offer(pair.position);
  }
  for (int i = 0; i < count; i = tokens[i].next) {
    ids.push_back(tokens[i].id);
  }
}

const ClipTokenizer::Merge* ClipTokenizer::FindMerge(int32_t left, int32_t right) const {
  const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right));
  return found == merges_.end() ? nullptr : &found->second;
}

}  // namespace hotlora
