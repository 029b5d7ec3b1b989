#include "src/tensor/device.h"

#include <ATen/Context.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/tensor/cuda_library.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;

TEST(DeviceTest, ResolvesWhatIsNamed) {
  const auto place = ResolvePlace("cpu", "float16");
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_TRUE(place->device.is_cpu());
  EXPECT_EQ(place->dtype, c10::kHalf);
  EXPECT_EQ(place->vae_dtype, c10::kFloat);
  EXPECT_EQ(ResolvePlace("cpu", "float32", "bfloat16")->vae_dtype, c10::kBFloat16);
  EXPECT_EQ(ResolvePlace("cpu", "float32")->dtype, c10::kFloat);
  EXPECT_EQ(ResolvePlace("cpu", "bfloat16")->dtype, c10::kBFloat16);
}

TEST(DeviceTest, AutoTakesCudaWhereThereIsOne) {
  const auto place = ResolvePlace("auto", "auto");
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_EQ(place->device.is_cuda(), at::hasCUDA());
  if (at::hasCUDA()) {
    EXPECT_EQ(place->dtype, c10::kBFloat16);
    EXPECT_EQ(place->device.index(), 0);
  } else {
    EXPECT_NE(place->dtype, c10::kHalf);
  }
}

TEST(DeviceTest, Float32IsExactWhereItIsAskedFor) {
  ASSERT_TRUE(ResolvePlace("cpu", "bfloat16").ok());
  EXPECT_TRUE(at::globalContext().allowTF32CuDNN());
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
  ASSERT_TRUE(ResolvePlace("cpu", "float32").ok());
  EXPECT_FALSE(at::globalContext().allowTF32CuDNN());
  EXPECT_FALSE(at::globalContext().allowTF32CuBLAS());
}

TEST(DeviceTest, RefusesUnknownNamesAndSaysWhatIsAllowed) {
  for (const char* name : {"", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda: 1", "cuda:+1", "cuda:1 ", "cuda:128",
                           "cuda:99999999999999999999", "cpu:0", "cuda0"}) {
    const auto place = ResolvePlace(name, "float32");
    EXPECT_EQ(place.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(place.status().message(), HasSubstr("allowed are auto, cpu, cuda, cuda:N")) << name;
  }
  for (const char* name : {"", "auto", "fp16", "Float32"}) {
    const auto place = ResolvePlace("cpu", "float32", name);
    EXPECT_EQ(place.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(place.status().message(), HasSubstr("vae-dtype is \"")) << name;
    EXPECT_THAT(place.status().message(), HasSubstr("allowed are float32, bfloat16, float16")) << name;
  }
  for (const char* name : {"", "fp16", "float64", "Float32"}) {
    const auto place = ResolvePlace("cpu", name);
    EXPECT_EQ(place.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(place.status().message(), HasSubstr("bfloat16")) << name;
  }
}

TEST(DeviceTest, ADeviceThatIsNotThereIsAFailedPrecondition) {
  const absl::Status status = ResolvePlace("cuda:127", "auto").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("device is \"cuda:127\"; "));
  if (absl::IsNotFound(LoadCuda())) {
    EXPECT_THAT(status.message(), HasSubstr("this build has no libhotlora_cuda.so"));
    EXPECT_THAT(status.message(), HasSubstr("deploy/install_dependencies.sh --cuda"));
  } else {
    EXPECT_THAT(status.message(), HasSubstr("CUDA finds"));
  }
}

TEST(DeviceTest, NamesDevicesAndDtypes) {
  EXPECT_EQ(DeviceName(c10::Device(c10::kCPU)), "cpu");
  EXPECT_EQ(DeviceName(c10::Device(c10::kCUDA, 3)), "cuda:3");
  EXPECT_EQ(DeviceName(c10::Device(c10::kCUDA)), "cuda:0");
  EXPECT_EQ(DtypeName(c10::kFloat), "float32");
  EXPECT_EQ(DtypeName(c10::kBFloat16), "bfloat16");
  EXPECT_EQ(DtypeName(c10::kHalf), "float16");
  Synchronize(c10::Device(c10::kCPU));
}

}  // namespace
}  // namespace hotlora
