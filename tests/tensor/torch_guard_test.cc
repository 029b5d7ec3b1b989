#include "src/tensor/torch_guard.h"

#include <new>
#include <stdexcept>

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Mapped {
  absl::StatusCode code;
  std::string reason;
};

template <typename Throw>
Mapped Map(Throw body) {
  const absl::Status status = GuardTorch("denoise step", [&]() -> absl::Status {
    body();
    return absl::OkStatus();
  });
  EXPECT_THAT(status.message(), HasSubstr("denoise step"));
  EXPECT_THAT(status.message(), Not(HasSubstr("secret")));
  return {status.code(), GetErrorDetails(status).reason};
}

TEST(TorchGuardTest, MapsEachExceptionMostDerivedFirst) {
  const c10::SourceLocation here{"function", "file", 1};
  Mapped mapped = Map([&] { throw c10::OutOfMemoryError(here, "secret"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(mapped.reason, "OUT_OF_MEMORY");
  mapped = Map([] { throw std::bad_alloc(); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(mapped.reason, "OUT_OF_MEMORY");
  mapped = Map([&] { throw c10::AcceleratorError(here, 700, "secret"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kInternal);
  EXPECT_EQ(mapped.reason, "DEVICE_FAILED");
  mapped = Map([&] { throw c10::NotImplementedError(here, "secret"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kUnimplemented);
  mapped = Map([] { TORCH_CHECK(false, "secret"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kInternal);
  EXPECT_EQ(mapped.reason, "INTERNAL");
  mapped = Map([] { throw std::runtime_error("secret"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kInternal);
  mapped = Map([] { throw NonfiniteError("the latents are not finite"); });
  EXPECT_EQ(mapped.code, absl::StatusCode::kInternal);
  EXPECT_EQ(mapped.reason, "NONFINITE_OUTPUT");
  mapped = Map([] { throw 1; });
  EXPECT_EQ(mapped.code, absl::StatusCode::kInternal);
}

// A server that ends for each refused call is as wrong as one that goes on with a device that is lost.
TEST(TorchGuardTest, JudgesAnErrorOfTheDeviceByItsCode) {
  const auto reason = [](int32_t code) {
    return Map([code] { throw c10::AcceleratorError({"function", "file", 1}, code, "secret"); }).reason;
  };
  EXPECT_EQ(reason(2), "OUT_OF_MEMORY") << "pinned memory";
  for (const int32_t refused : {1, 9, 98, 209, 701, 712, 801, 900, 908}) {
    EXPECT_EQ(reason(refused), "INTERNAL") << refused;
  }
  // Illegal address, time-out, assert, illegal instruction, misaligned address, launch failure, ECC, NVLink, unknown.
  for (const int32_t lost : {700, 702, 710, 715, 716, 719, 214, 220, 999, 12345}) {
    EXPECT_EQ(reason(lost), "DEVICE_FAILED") << lost;
  }
}

TEST(TorchGuardTest, PassesTheBodysStatusThroughInInferenceMode) {
  EXPECT_FALSE(c10::InferenceMode::is_enabled());
  EXPECT_TRUE(GuardTorch("load", [] {
                EXPECT_TRUE(c10::InferenceMode::is_enabled());
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(GuardTorch("load", [] { return absl::NotFoundError("no such thing"); }),
            absl::NotFoundError("no such thing"));
  EXPECT_FALSE(c10::InferenceMode::is_enabled());
}

}  // namespace
}  // namespace hotlora
