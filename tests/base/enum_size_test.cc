#include "src/base/enum_size.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

enum class None {};
enum class One { kOnly };
enum class Byte : unsigned char { kFirst, kSecond };
struct Holder {
  enum class Inside { kA, kB, kC };
};

TEST(EnumSizeTest, CountsTheValues) {
  enum class Local { kA, kB, kC, kD };
  EXPECT_EQ(kEnumSize<None>, 0u);
  EXPECT_EQ(kEnumSize<One>, 1u);
  EXPECT_EQ(kEnumSize<Byte>, 2u);
  EXPECT_EQ(kEnumSize<Holder::Inside>, 3u);
  EXPECT_EQ(kEnumSize<Local>, 4u);
}

}  // namespace
}  // namespace hotlora
