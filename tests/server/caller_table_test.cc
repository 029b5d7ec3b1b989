#include "server/caller_table.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(CallerTableTest, EachCallerHasAValue) {
  CallerTable<int> table(2);
  EXPECT_EQ(table.Find("a"), nullptr);
  EXPECT_EQ(table.Of("a"), 0);
  table.Of("a") = 1;
  table.Of("b") = 2;
  EXPECT_EQ(table.Of("a"), 1);
  EXPECT_EQ(*table.Find("b"), 2);
}

TEST(CallerTableTest, CallersBeyondTheBoundShareAValue) {
  CallerTable<int> table(2);
  table.Of("a") = 1;
  EXPECT_FALSE(table.full());
  table.Of("b") = 2;
  EXPECT_TRUE(table.full());
  table.Of("c") = 3;
  EXPECT_EQ(table.Of("d"), 3);
  EXPECT_EQ(table.Find("d"), nullptr);
  EXPECT_EQ(table.Of("a"), 1);
}

TEST(CallerTableTest, ErasedCallersMakeRoom) {
  CallerTable<int> table(2);
  table.Of("a") = 1;
  table.Of("b") = 2;
  table.Of("c") = 3;
  table.EraseIf([](int value) { return value == 1; });
  EXPECT_EQ(table.Find("a"), nullptr);
  EXPECT_EQ(table.Of("c"), 0) << "a value of its own, not the shared one";
  EXPECT_EQ(table.Of("d"), 3) << "the shared one stays";
  table.Clear();
  EXPECT_EQ(table.Find("b"), nullptr);
  EXPECT_EQ(table.Of("b") + table.Of("c") + table.Of("d"), 0);
}

}  // namespace
}  // namespace hotlora
