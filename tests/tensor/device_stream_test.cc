#include "src/tensor/device_stream.h"

#include <new>
#include <string>
#include <vector>

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/error_details.h"

namespace hotlora {
namespace {

using ::testing::ElementsAre;

// What the guard below was asked.
struct Device {
  c10::DeviceIndex current = 0;
  c10::StreamId streams[2] = {0, 0};  // the current one of each device; 0 is the default
  c10::StreamId taken = 0;            // from the pool
  std::vector<std::string> calls;
  bool lost = false;  // every wait fails
};
Device device;

// Two devices that compute nothing.
class RecordingGuard final : public c10::impl::DeviceGuardImplInterface {
 public:
  static constexpr c10::DeviceType static_type = c10::DeviceType::PrivateUse1;

  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device next) const override {
    const c10::Device before = getDevice();
    device.current = next.index();
    return before;
  }
  c10::Device getDevice() const override { return {static_type, device.current}; }
  void setDevice(c10::Device next) const override { device.current = next.index(); }
  void uncheckedSetDevice(c10::Device next) const noexcept override { device.current = next.index(); }
  c10::Stream getStream(c10::Device of) const override { return StreamOf(of, device.streams[of.index()]); }
  c10::Stream getStreamFromGlobalPool(c10::Device of, bool high) const override {
    device.calls.emplace_back(high ? "take high" : "take low");
    return StreamOf(of, ++device.taken);
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const c10::Stream before = getStream(next.device());
    device.streams[next.device_index()] = next.id();
    return before;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  void synchronizeStream(const c10::Stream& stream) const override {
    device.calls.push_back("wait for " + std::to_string(stream.id()));
    if (device.lost) {
      throw c10::AcceleratorError({"function", "file", 1}, 719, "unspecified launch failure");
    }
  }

 private:
  static c10::Stream StreamOf(c10::Device of, c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, of, id); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, RecordingGuard)

const c10::Device kSecond(c10::DeviceType::PrivateUse1, 1);

class DeviceStreamTest : public testing::Test {
 protected:
  DeviceStreamTest() { device = Device(); }
};

TEST_F(DeviceStreamTest, TheDeviceAndTheStreamAreCurrentInTheBodyAndTheWaitEndsIt) {
  const DeviceStream high(kSecond, DeviceStream::Priority::kHigh), low(kSecond, DeviceStream::Priority::kLow);
  const absl::Status status = high.Run("step", [] {
    EXPECT_EQ(device.current, 1) << "a kernel that is launched by hand goes to the current device";
    EXPECT_EQ(device.streams[1], 1);
    EXPECT_EQ(device.streams[0], 0);
    device.calls.emplace_back("body");
    return absl::NotFoundError("no such thing");
  });
  EXPECT_EQ(status, absl::NotFoundError("no such thing"));
  EXPECT_TRUE(low.Run("decode",
                      [] {
                        EXPECT_EQ(device.streams[1], 2);
                        return absl::OkStatus();
                      })
                  .ok());
  EXPECT_THAT(device.calls, ElementsAre("take high", "take low", "body", "wait for 1", "wait for 2"));
  EXPECT_EQ(device.current, 0);
  EXPECT_EQ(device.streams[1], 0);
}

// What a body that failed had queued may still read an adapter's memory, which its request now gives back.
TEST_F(DeviceStreamTest, WaitsForABodyThatThrows) {
  const DeviceStream stream(kSecond, DeviceStream::Priority::kHigh);
  device.calls.clear();
  const absl::Status status = stream.Run("step", []() -> absl::Status {
    throw c10::OutOfMemoryError({"function", "file", 1}, "no memory");
  });
  EXPECT_EQ(GetErrorDetails(status).reason, "OUT_OF_MEMORY");
  EXPECT_THAT(device.calls, ElementsAre("wait for 1"));
  EXPECT_EQ(device.current, 0);
  EXPECT_EQ(device.streams[1], 0);
}

TEST_F(DeviceStreamTest, AWaitThatFailsCountsMoreThanTheBody) {
  const DeviceStream stream(kSecond, DeviceStream::Priority::kHigh);
  device.lost = true;
  for (const absl::Status& of_body : {absl::OkStatus(), absl::NotFoundError("no such thing")}) {
    const absl::Status status = stream.Run("step", [&] { return of_body; });
    EXPECT_EQ(GetErrorDetails(status).reason, "DEVICE_FAILED") << of_body;
  }
}

TEST_F(DeviceStreamTest, TheCpuHasNoStream) {
  const DeviceStream stream(c10::Device(c10::kCPU), DeviceStream::Priority::kLow);
  EXPECT_EQ(stream.Run("step", [] { return absl::NotFoundError("no such thing"); }),
            absl::NotFoundError("no such thing"));
  EXPECT_EQ(GetErrorDetails(stream.Run("step", []() -> absl::Status { throw std::bad_alloc(); })).reason,
            "OUT_OF_MEMORY");
  EXPECT_TRUE(device.calls.empty());
}

}  // namespace
}  // namespace hotlora
