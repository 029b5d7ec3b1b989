#ifndef HOTLORA_TESTS_MARGIN_H_
#define HOTLORA_TESTS_MARGIN_H_

// How much of its tolerance a comparison took. HOTLORA_TEST_MARGINS=FILE: each comparison appends a line to it.

#include <cstdlib>
#include <fstream>
#include <functional>
#include <string>

#include <gtest/gtest.h>

namespace hotlora {

// Also told of each comparison, if it is set: gpu_probe (tests/gpu) does.
using MarginListener = std::function<void(double worst, double tolerance, const std::string& what)>;
inline MarginListener& TheMarginListener() {
  static MarginListener listener;
  return listener;
}

inline void NoteMargin(double worst, double tolerance, const std::string& what) {
  if (TheMarginListener()) {
    TheMarginListener()(worst, tolerance, what);
  }
  const char* file = std::getenv("HOTLORA_TEST_MARGINS");
  if (file == nullptr) {
    return;
  }
  const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
  std::ofstream(file, std::ios::app) << worst / tolerance << ' ' << test->test_suite_name() << '.' << test->name()
                                     << " " << what << ": " << worst << " of " << tolerance << '\n';
}

// Expects that an error is within its tolerance, and says by how much it is off.
inline void ExpectError(double worst, double tolerance, const std::string& what) {
  NoteMargin(worst, tolerance, what);
  // Not written as EXPECT_LE: a NaN must fail.
  EXPECT_TRUE(worst <= tolerance) << what << ": largest difference " << worst << ", allowed " << tolerance;
}

}  // namespace hotlora

#endif  // HOTLORA_TESTS_MARGIN_H_
