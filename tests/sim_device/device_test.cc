// Each property of the simulated device, and beside it what happens to correct code.

#include <cmath>
#include <limits>
#include <string>
#include <thread>

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/sim_device/sim_device.h"

namespace hotlora {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr auto kType = c10::DeviceType::PrivateUse1;

class SimDeviceTest : public ::testing::Test {
 protected:
  SimDeviceTest() { RegisterSimDevice(); }
  ~SimDeviceTest() override {
    ClearSimError();
    SetSimMemoryLimit(0, kSimMemory);
  }

  static c10::Stream NewStream() { return c10::impl::VirtualGuardImpl(kType).getNewStream(SimDevice()); }
  static at::Tensor Ones(int64_t count = 4) { return at::ones({count}, at::TensorOptions(SimDevice())); }
  static at::Tensor Pinned(int64_t count = 4) { return at::ones({count}, at::TensorOptions().pinned_memory(true)); }
  static float First(const at::Tensor& tensor) { return tensor.cpu()[0].item<float>(); }

  // What `work` adds to the counts of this thread.
  template <typename Work>
  static SimCounts Count(const Work& work) {
    const SimCounts before = SimCountsOfThisThread();
    work();
    return SimCountsOfThisThread() - before;
  }

 private:
  const c10::InferenceMode inference_;
};

TEST_F(SimDeviceTest, ComputesWhatTheCpuComputes) {
  const at::Tensor a = at::randn({3, 4}), b = at::randn({3, 4});
  const at::Tensor on_device = at::linear(a.to(SimDevice()) * 2.0, b.to(SimDevice())).softmax(-1);
  EXPECT_TRUE(at::equal(on_device.cpu(), at::linear(a * 2.0, b).softmax(-1)));
  EXPECT_EQ(on_device.device(), SimDevice(0));
}

TEST_F(SimDeviceTest, WorkIsLate) {
  const at::Tensor host = Pinned(), late = at::empty({4}, at::TensorOptions(SimDevice())),
                   waited = at::empty_like(late);
  waited.copy_(host, /*non_blocking=*/true);
  c10::impl::VirtualGuardImpl(kType).getStream(SimDevice()).synchronize();
  late.copy_(host, /*non_blocking=*/true);
  host.fill_(7.0);
  EXPECT_EQ(First(late), 7.0F) << "the copy was made before anything waited for it";
  EXPECT_EQ(First(waited), 1.0F);
}

TEST_F(SimDeviceTest, StreamsAreOrderedByEventsAlone) {
  const c10::Stream other = NewStream();
  const at::Tensor value = Ones();
  EXPECT_NE(other, NewStream());
  const auto read_on_other = [&](bool with_event) {
    value.add_(1.0);
    c10::Event event(kType);
    event.record(c10::impl::VirtualGuardImpl(kType).getStream(SimDevice()));
    if (with_event) {
      event.block(other);
    }
    const c10::StreamGuard guard(other);
    return First(value);
  };
  c10::impl::VirtualGuardImpl(kType).synchronizeDevice(0);
  EXPECT_EQ(read_on_other(/*with_event=*/false), 1.0F);
  EXPECT_EQ(read_on_other(/*with_event=*/true), 3.0F);
}

TEST_F(SimDeviceTest, EventsThatTimeTellHowLongWorkTook) {
  const c10::Stream stream = c10::impl::VirtualGuardImpl(kType).getStream(SimDevice());
  c10::Event begin(kType, c10::EventFlag::BACKEND_DEFAULT), middle(kType, c10::EventFlag::BACKEND_DEFAULT),
      end(kType, c10::EventFlag::BACKEND_DEFAULT), plain(kType);
  at::Tensor large = at::ones({1 << 22}, at::TensorOptions(SimDevice())), small = Ones();
  stream.synchronize();
  begin.record(stream);
  large.sqrt_();
  middle.record(stream);
  small.sqrt_();
  end.record(stream);
  plain.record(stream);
  EXPECT_ANY_THROW(begin.elapsedTime(end)) << "nothing is done yet";
  stream.synchronize();
  const double first = begin.elapsedTime(middle), second = middle.elapsedTime(end);
  EXPECT_GT(first, second);
  EXPECT_NEAR(begin.elapsedTime(end), first + second, 1e-6);
  EXPECT_ANY_THROW(begin.elapsedTime(plain));
}

TEST_F(SimDeviceTest, HostThatTouchesMemoryCrashesWithAStack) {
  const at::Tensor tensor = Ones();
  EXPECT_DEATH(static_cast<void>(*static_cast<const volatile float*>(tensor.const_data_ptr())),
               "the host touched sim:0's memory:\n.*sim_device_test");
  EXPECT_EQ(*static_cast<const float*>(tensor.cpu().const_data_ptr()), 1.0F);
}

TEST_F(SimDeviceTest, FreshAndFreedMemoryIsPoison) {
  EXPECT_TRUE(std::isnan(First(at::empty({4}, at::TensorOptions(SimDevice())))));
  EXPECT_TRUE(std::isnan(First(at::empty({4}, at::TensorOptions(SimDevice()).dtype(at::kHalf)))));
  void* const place = Ones().mutable_data_ptr();
  const at::Tensor again = at::empty({4}, at::TensorOptions(SimDevice()));
  ASSERT_EQ(again.mutable_data_ptr(), place) << "the block was not used again";
  EXPECT_TRUE(std::isnan(First(again)));
}

// The stream that reads is another than the one the memory came from.
TEST_F(SimDeviceTest, FreedMemoryIsKeptForRecordedStreamsOnly) {
  const c10::Stream other = NewStream();
  for (const bool recorded : {false, true}) {
    at::Tensor value = Ones(), result;
    c10::impl::VirtualGuardImpl(kType).synchronizeDevice(0);
    {
      const c10::StreamGuard guard(other);
      result = value + 1.0;
      if (recorded) {
        value.record_stream(other);
      }
    }
    value.reset();
    c10::impl::VirtualGuardImpl(kType).getStream(SimDevice()).synchronize();  // the poison, if any
    const c10::StreamGuard guard(other);
    EXPECT_EQ(std::isnan(First(result)), !recorded) << recorded;
  }
}

TEST_F(SimDeviceTest, QueuedWorkHoldsNoTensor) {
  const at::Tensor a = Ones();
  const at::Tensor sum = a + a;
  EXPECT_EQ(a.use_count(), 1u);
  EXPECT_EQ(a.storage().use_count(), 1u);
  EXPECT_EQ(First(sum), 2.0F);
}

TEST_F(SimDeviceTest, DeviceAndStreamBelongToTheThread) {
  const c10::impl::VirtualGuardImpl impl(kType);
  const c10::Stream stream = NewStream();
  const c10::DeviceGuard device_guard(SimDevice(1));
  const c10::StreamGuard stream_guard(stream);  // makes sim:0 the current device again
  impl.setDevice(SimDevice(1));
  std::thread([&] {
    EXPECT_EQ(impl.getDevice(), SimDevice(0));
    EXPECT_EQ(impl.getStream(SimDevice(0)), impl.getDefaultStream(SimDevice(0)));
  }).join();
  EXPECT_EQ(impl.getDevice(), SimDevice(1));
  EXPECT_EQ(impl.getStream(SimDevice(0)), stream);
}

TEST_F(SimDeviceTest, TensorsOfTwoDevicesDoNotMix) {
  const at::Tensor first = Ones(), second = at::ones({4}, at::TensorOptions(SimDevice(1))), host = at::ones({4});
  EXPECT_EQ(second.device(), SimDevice(1));
  EXPECT_THAT([&] { return first + second; }, ThrowsMessage<c10::Error>(HasSubstr("sim:0 and sim:1")));
  EXPECT_THAT([&] { return at::cat({first, host}); }, ThrowsMessage<c10::Error>(HasSubstr("sim:0 and cpu")));
  EXPECT_EQ(First(first + at::scalar_tensor(2.0)), 3.0F);
  EXPECT_EQ(First(first + second.to(SimDevice(0))), 2.0F);
}

TEST_F(SimDeviceTest, GroupNormGivesNchw) {
  const at::Tensor x = at::randn({2, 4, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor y = at::group_norm(x.to(SimDevice()), 2);
  EXPECT_TRUE(y.is_contiguous());
  EXPECT_FALSE(at::group_norm(x, 2).is_contiguous());
  EXPECT_TRUE(at::allclose(y.cpu(), at::group_norm(x, 2), 1e-5, 1e-5));
}

TEST_F(SimDeviceTest, CopiesLeaveWithoutAWaitOnlyFromAndToPinnedMemory) {
  const at::Tensor pinned = Pinned(), pageable = at::ones({4}), target = Ones();
  EXPECT_TRUE(pinned.is_pinned());
  EXPECT_FALSE(pageable.is_pinned());
  EXPECT_EQ(Count([&] { target.copy_(pinned, true); }).blocking_copies, 0);
  EXPECT_EQ(Count([&] { target.copy_(pageable, true); }).blocking_copies, 1);
  EXPECT_EQ(Count([&] { target.copy_(pinned); }).blocking_copies, 1);
  EXPECT_EQ(Count([&] { pinned.copy_(target, true); }).blocking_copies, 0);
  EXPECT_EQ(Count([&] { target.sum().item<float>(); }).blocking_copies, 1);
  EXPECT_EQ(Count([&] { at::equal(target, target); }).blocking_copies, 1);
}

// The block is kept, but a write to it while it is in use spoils the copy (WorkIsLate).
TEST_F(SimDeviceTest, FreedPinnedBlocksWaitForTheirCopies) {
  const at::Tensor target = at::empty({4}, at::TensorOptions(SimDevice()));
  at::Tensor pinned = Pinned();
  target.copy_(pinned, /*non_blocking=*/true);
  pinned.reset();
  Pinned().fill_(9.0);
  EXPECT_EQ(First(target), 1.0F);
}

TEST_F(SimDeviceTest, CountsByThread) {
  const at::Tensor a = Ones();
  const SimCounts here = Count([&] {
    std::thread([&] {
      pthread_setname_np(pthread_self(), "counted");
      at::Tensor b = a + a;
      b.mul_(2.0);
      c10::impl::VirtualGuardImpl(kType).getStream(SimDevice()).synchronize();
    }).join();
  });
  EXPECT_EQ(here.launches + here.allocations + here.host_waits(), 0);
  const SimCounts there = SimCountsByThread().at("counted");
  EXPECT_EQ(there.launches, 2);
  EXPECT_EQ(there.allocations, 1);
  EXPECT_EQ(there.synchronizations, 1);
  EXPECT_EQ(there.blocking_copies, 0);
}

TEST_F(SimDeviceTest, AllocatorKeepsSegmentsAndCountsBytes) {
  auto* const allocator = c10::getDeviceAllocator(kType);
  const auto loop = [] {
    for (int i = 0; i < 10; ++i) {
      const at::Tensor large = Ones(1 << 20), small = Ones(100);
    }
  };
  loop();
  const int64_t allocated = allocator->getDeviceStats(0).allocated_bytes[0].current;
  const SimCounts again = Count(loop);
  EXPECT_EQ(again.allocations, 20);
  EXPECT_EQ(again.segments, 0);
  EXPECT_EQ(allocator->getDeviceStats(0).allocated_bytes[0].current, allocated);
  const at::Tensor held = Ones(100);
  EXPECT_EQ(allocator->getDeviceStats(0).allocated_bytes[0].current, allocated + 512);
  EXPECT_EQ(Count([] { Ones(50 << 20); }).segments, 1);
}

TEST_F(SimDeviceTest, MemoryEndsAtTheLimit) {
  auto* const allocator = c10::getDeviceAllocator(kType);
  allocator->emptyCache();
  const auto reserved = allocator->getDeviceStats(0).reserved_bytes[0].current;
  SetSimMemoryLimit(0, reserved + (30 << 20));
  EXPECT_THROW(Ones(10 << 20), c10::OutOfMemoryError);
  EXPECT_NO_THROW(Ones(6 << 20));
  EXPECT_NO_THROW(Ones(7 << 20)) << "the cache was not given back";
  EXPECT_EQ(allocator->getDeviceStats(0).num_ooms, 1);
}

TEST_F(SimDeviceTest, ErrorsOfAStreamAreTheDevicesUntilCleared) {
  const at::Tensor table = at::ones({4, 2}).to(SimDevice()), index = at::full({1}, 9).to(SimDevice());
  const at::Tensor picked = at::index_select(table, 0, index);
  EXPECT_THROW(picked.cpu(), c10::AcceleratorError);
  EXPECT_THROW(Ones().cpu(), c10::AcceleratorError);
  ClearSimError();
  EXPECT_EQ(First(Ones()), 1.0F);
}

TEST_F(SimDeviceTest, OperatorsWithoutMetaKernelWaitAndAreListed) {
  const at::Tensor a = Ones();
  EXPECT_EQ(Count([&] { a + a; }).blocking_copies, 0);
  const int64_t before = DrainedOperators()["nonzero"];
  EXPECT_EQ(Count([&] { EXPECT_EQ(at::nonzero(a).size(0), 4); }).blocking_copies, 1);
  EXPECT_EQ(DrainedOperators()["nonzero"], before + 1);
  EXPECT_EQ(DrainedOperators().count("add.Tensor") + DrainedOperators().count("add.out"), 0u);
}

}  // namespace
}  // namespace hotlora
