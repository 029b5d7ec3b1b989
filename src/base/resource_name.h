#ifndef HOTLORA_SRC_BASE_RESOURCE_NAME_H_
#define HOTLORA_SRC_BASE_RESOURCE_NAME_H_

// The names of what lies in the server's folders (adapters, embeddings): what a name may be, how it is shown, and how
// it stands in a list. Every place that takes a name asks NormalizeName; there are no other rules.

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hotlora {

inline constexpr size_t kMaxNameBytes = 255;
inline constexpr size_t kMaxNameParts = 8;

// The name in Unicode's normal form C, the form that names are compared in. A name is 1 to 255 bytes of UTF-8 in 1 to 8
// parts joined by "/". A part is what a file may be called: letters of any script, digits, signs, blanks, also at its
// ends. InvalidArgument, with a message that continues the name of the field, for
//   control characters and line separators; characters that change the direction of writing (they make a name look like
//   another one); ":" (NAME:WEIGHT), "<" and ">" (<lora:NAME>), "\\"; empty parts; parts that begin with "." (hidden
//   files, "..", so that a name is never a path out of the folder); invalid UTF-8.
absl::StatusOr<std::string> NormalizeName(absl::string_view name);

// `text` as it can be shown: printable characters of any script as they are; control characters, line separators,
// characters that change the direction of writing and bytes that are not UTF-8 as \xNN; a backslash doubled. Text that
// this changes is not a valid name.
std::string EscapeName(absl::string_view text);

// A name as an item of a list that is joined by "," or "+", and as the value of a header: each byte but letters,
// digits, "-", ".", "_", "~" and "/" is percent-encoded (RFC 3986). ASCII.
std::string EncodeName(absl::string_view name);

// The text that EncodeName made `item` of; what is not percent-encoded stands for itself. InvalidArgument for a "%"
// without two hexadecimal digits.
absl::StatusOr<std::string> DecodeName(absl::string_view item);

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_RESOURCE_NAME_H_
