#include "src/base/resource_name.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

#include "src/base/first_character.h"
#include "src/base/invalid_argument.h"
#include "src/base/status_macros.h"

namespace hotlora {
namespace {

using CodePoint = utf8proc_int32_t;

bool IsControl(CodePoint c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

// Unicode's Bidi_Control property.
bool ChangesDirection(CodePoint c) {
  return c == 0x061C || c == 0x200E || c == 0x200F || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
}

absl::Status CheckCharacter(CodePoint c) {
  if (IsControl(c)) {
    return InvalidArgument("has the control character ", absl::StrFormat("U+%04X", c));
  }
  if (ChangesDirection(c)) {
    return InvalidArgument("has the character ", absl::StrFormat("U+%04X", c),
                           ", which changes the direction of writing");
  }
  switch (c) {
    case ':':
      return InvalidArgument("has \":\", which stands between a name and its weight");
    case '<':
    case '>':
      return InvalidArgument("has \"", std::string(1, static_cast<char>(c)), "\", which <lora:NAME> tags need");
    case '\\':
      return InvalidArgument("has a backslash; parts of a name are joined by \"/\"");
    default:
      return absl::OkStatus();
  }
}

absl::StatusOr<std::string> ToFormC(absl::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  if (length < 0) {
    return InvalidArgument("is not valid UTF-8");
  }
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<size_t>(length));
}

absl::Status CheckSize(absl::string_view name) {
  return name.empty() || name.size() > kMaxNameBytes
             ? InvalidArgument("has ", name.size(), " bytes; allowed are 1 to ", kMaxNameBytes)
             : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> NormalizeName(absl::string_view name) {
  ABSL_RETURN_IF_ERROR(CheckSize(name));
  for (absl::string_view rest = name; !rest.empty();) {
    CodePoint c = 0;
    const utf8proc_ssize_t length = FirstCharacter(rest, &c);
    if (length <= 0) {
      return InvalidArgument("is not valid UTF-8");
    }
    ABSL_RETURN_IF_ERROR(CheckCharacter(c));
    rest.remove_prefix(static_cast<size_t>(length));
  }
  ABSL_ASSIGN_OR_RETURN(std::string normal, ToFormC(name));
  ABSL_RETURN_IF_ERROR(CheckSize(normal));
  size_t parts = 0;
  for (const absl::string_view part : absl::StrSplit(normal, '/')) {
    if (part.empty()) {
      return InvalidArgument("has an empty part; parts are joined by one \"/\" and none stands at the ends");
    }
    if (part.front() == '.') {
      return InvalidArgument("has a part that begins with \".\", as hidden files do");
    }
    ++parts;
  }
  if (parts > kMaxNameParts) {
    return InvalidArgument("has ", parts, " parts; allowed are at most ", kMaxNameParts);
  }
  return normal;
}

std::string EscapeName(absl::string_view text) {
  std::string shown;
  while (!text.empty()) {
    CodePoint c = 0;
    const utf8proc_ssize_t length = FirstCharacter(text, &c);
    const size_t bytes = length > 0 ? static_cast<size_t>(length) : 1;
    if (c == '\\' && length > 0) {
      absl::StrAppend(&shown, "\\\\");
    } else if (length > 0 && !IsControl(c) && !ChangesDirection(c)) {
      absl::StrAppend(&shown, text.substr(0, bytes));
    } else {
      for (const char byte : text.substr(0, bytes)) {
        absl::StrAppendFormat(&shown, "\\x%02x", static_cast<unsigned char>(byte));
      }
    }
    text.remove_prefix(bytes);
  }
  return shown;
}

std::string EncodeName(absl::string_view name) {
  std::string item;
  for (const char c : name) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~/", c)) {
      item.push_back(c);
    } else {
      absl::StrAppendFormat(&item, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return item;
}

absl::StatusOr<std::string> DecodeName(absl::string_view item) {
  std::string name;
  while (!item.empty()) {
    if (item.front() != '%') {
      name.push_back(item.front());
      item.remove_prefix(1);
      continue;
    }
    if (item.size() < 3 || !absl::ascii_isxdigit(static_cast<unsigned char>(item[1])) ||
        !absl::ascii_isxdigit(static_cast<unsigned char>(item[2]))) {
      return InvalidArgument("has \"%\" without two hexadecimal digits; a \"%\" of a name is written %25");
    }
    absl::StrAppend(&name, absl::HexStringToBytes(item.substr(1, 2)));
    item.remove_prefix(3);
  }
  return name;
}

}  // namespace hotlora
