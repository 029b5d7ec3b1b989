#ifndef HOTLORA_CLIENT_CONTACT_SHEET_H_
#define HOTLORA_CLIENT_CONTACT_SHEET_H_

// Pictures side by side: the rows of a sheet are prompts, say, and its columns adapters.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace hotlora {

// Writes the PNG file `out` with the PNG files `pictures`, row by row, `columns` to a row, four white pixels around
// each; the last row may be short. InvalidArgument if a file is not a PNG or has another size than the first, if the
// sheet would be over 100 megapixels, or if `out` cannot be written.
absl::Status WriteContactSheet(const std::vector<std::string>& pictures, uint32_t columns, const std::string& out);

}  // namespace hotlora

#endif  // HOTLORA_CLIENT_CONTACT_SHEET_H_
