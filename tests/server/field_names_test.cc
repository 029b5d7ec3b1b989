#include "server/field_names.h"

#include <gtest/gtest.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"
#include "src/request/validation.h"

namespace hotlora {
namespace {

constexpr FieldName kNames[] = {
    {"num_images", "n"},
    {"width", "size", "width"},
    {"adapters[].weight", "model", "weight of adapter #"},
};

TEST(FieldNamesTest, RenamesTheFieldsThatItKnowsInDetailsAndMessage) {
  const absl::Status status = WithFieldNames(
      InvalidRequest({{"num_images", "is 0"}, {"width", "is 9"}, {"adapters[11].weight", "is nan"}, {"steps", "is 0"}}),
      kNames);
  EXPECT_EQ(status.message(),
            "4 bad fields: n is 0; size (width) is 9; model (weight of adapter 12) is nan; steps is 0");
  const std::vector<FieldViolation> violations = GetErrorDetails(status).violations;
  ASSERT_EQ(violations.size(), 4u);
  EXPECT_EQ(violations[0].field, "n");
  EXPECT_EQ(violations[2].field, "model");
  EXPECT_EQ(violations[2].description, "(weight of adapter 12) is nan");
  EXPECT_EQ(violations[3].field, "steps");
}

TEST(FieldNamesTest, LeavesNamesThatOnlyLookAlike) {
  for (const char* field : {"adapters[].weight", "adapters[x].weight", "adapters[-1].weight", "adapters]0[.weight",
                            "adapters[0].name", "adapters[0]", "widths", ""}) {
    const absl::Status status = WithFieldNames(InvalidRequest({{field, "is bad"}}), kNames);
    const std::string named = GetErrorDetails(status).violations[0].field;
    EXPECT_EQ(named, field == std::string("adapters[].weight") ? "model" : field);
  }
}

TEST(FieldNamesTest, LeavesOtherErrors) {
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, error_reason::kQueueFull, "width is full");
  EXPECT_EQ(WithFieldNames(full, kNames), full);
  EXPECT_TRUE(WithFieldNames(absl::OkStatus(), kNames).ok());
}

}  // namespace
}  // namespace hotlora
