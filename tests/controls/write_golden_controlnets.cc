// Writes the nets of tests/golden/control for tests of whole programs: write_golden_controlnets FOLDER makes
// FOLDER/{lines,depth,union}/ in diffusers' layout.

#include <string>

#include "tests/golden_controlnets.h"

int main(int count, char** arguments) {
  if (count != 2) {
    return 2;
  }
  for (const char* const net : {"lines", "depth", "union"}) {
    hotlora::WriteControlNetFolder(net, std::string(arguments[1]) + "/" + net);
  }
  return 0;
}
