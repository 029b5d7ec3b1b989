#ifndef HOTLORA_SERVER_FLAG_TABLE_H_
#define HOTLORA_SERVER_FLAG_TABLE_H_

// The table of hotlora-server's flags: name, kind, help, and what its text may be. flags.h reads the sources.

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "server/flags.h"

namespace hotlora {

struct FlagSpec {
  enum class Kind { kValue, kSwitch, kList };

  std::string name;  // without dashes in front
  Kind kind;
  std::string help;
  // Gets the texts of the source that won, one unless the flag is a list, and says what is wrong with them, without the
  // flag's name.
  std::function<absl::Status(const std::vector<std::string>&, Flags&)> set;
};

// In the order of --help.
const std::vector<FlagSpec>& FlagTable();

}  // namespace hotlora

#endif  // HOTLORA_SERVER_FLAG_TABLE_H_
