#include "server/listener_probe.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

// Takes connections and closes them; while it is held the acceptor's thread waits in it, once a connection comes that
// its peer keeps open.
struct Gate {
  std::mutex mu;
  std::condition_variable changed;
  bool held = false;

  void Hold(bool hold) {
    std::lock_guard<std::mutex> lock(mu);
    held = hold;
    changed.notify_all();
  }
};

class GatedTarget : public ConnectionAcceptor::Target {
 public:
  explicit GatedTarget(Gate* gate) : gate_(gate) {}
  void HandleNewConnection(NewConnectionParameters* parameters) override {
    std::unique_lock<std::mutex> lock(gate_->mu);
    gate_->changed.wait(lock, [this] { return !gate_->held; });
    close(parameters->fd);
  }

 private:
  Gate* const gate_;
};

class ListenerProbeTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ConnectionAcceptor::Options accepting;
    accepting.is_unlimited = [](const IpAddress&) { return true; };
    accepting.on_refused = [](ConnectionRefusal) {};
    auto acceptor = ConnectionAcceptor::Listen(GetParam(), std::move(accepting));
    if (!acceptor.ok()) {
      GTEST_SKIP() << acceptor.status();
    }
    acceptor_ = *std::move(acceptor);
    probe_ = std::make_unique<ListenerProbe>(acceptor_.get(), [this] { return now_; });
  }
  void TearDown() override {
    gate_.Hold(false);
    if (caller_ >= 0) {
      close(caller_);
    }
  }

  // A connection that stays open.
  void Call() {
    const sockaddr_storage& address = acceptor_->address();
    caller_ = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(connect(caller_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }

  // The acceptor works in real time, the probe in the test's.
  void AwaitTaken(uint64_t more) {
    while (acceptor_->taken() < more) {
      std::this_thread::yield();
    }
  }

  absl::Duration LookAfter(int seconds) {
    absl::Duration deaf;
    for (int i = 0; i < seconds; ++i) {
      now_ += std::chrono::seconds(1);
      deaf = probe_->Look();
    }
    return deaf;
  }

  Gate gate_;
  int caller_ = -1;
  std::chrono::steady_clock::time_point now_{std::chrono::hours(1)};
  std::unique_ptr<ConnectionAcceptor> acceptor_;
  std::unique_ptr<ListenerProbe> probe_;
};

TEST_P(ListenerProbeTest, APortThatAcceptsIsNotDeaf) {
  acceptor_->Start(std::make_unique<GatedTarget>(&gate_));
  for (uint64_t probes = 1; probes <= 3; ++probes) {
    EXPECT_EQ(LookAfter(2), absl::ZeroDuration());
    AwaitTaken(probes);
    EXPECT_EQ(LookAfter(1), absl::ZeroDuration());
  }
}

TEST_P(ListenerProbeTest, APortThatAcceptsNothingIsDeafWithinTenSecondsUntilItAccepts) {
  acceptor_->Start(std::make_unique<GatedTarget>(&gate_));
  EXPECT_EQ(LookAfter(2), absl::ZeroDuration());
  AwaitTaken(1);
  gate_.Hold(true);
  Call();  // the acceptor waits with it, and takes none of the probe's
  EXPECT_EQ(LookAfter(6), absl::ZeroDuration());
  EXPECT_GE(LookAfter(3), absl::Seconds(5));
  EXPECT_GE(LookAfter(60), absl::Seconds(60));
  const uint64_t before = acceptor_->taken();
  gate_.Hold(false);
  AwaitTaken(before + 1);
  LookAfter(3);  // sees that, or a new connection is taken
  AwaitTaken(before + 2);
  EXPECT_EQ(LookAfter(1), absl::ZeroDuration());
}

TEST_P(ListenerProbeTest, AListenerThatIsGoneIsDeaf) {
  acceptor_->Start(std::make_unique<GatedTarget>(&gate_));
  acceptor_->Stop();
  EXPECT_GE(LookAfter(8), absl::Seconds(5));
}

TEST_P(ListenerProbeTest, AProcessThatStoodStillIsNotDeaf) {
  EXPECT_EQ(LookAfter(3), absl::ZeroDuration());  // the acceptor does not run, so nothing is taken
  now_ += std::chrono::hours(1);
  EXPECT_EQ(probe_->Look(), absl::ZeroDuration());
}

INSTANTIATE_TEST_SUITE_P(
    , ListenerProbeTest, ::testing::Values("127.0.0.1:0", "0.0.0.0:0", "[::1]:0"), [](const auto& tested) {
      return std::string(tested.param[0] == '1' ? "Loopback" : tested.param[0] == '0' ? "AllAddresses" : "Ipv6");
    });

}  // namespace
}  // namespace hotlora
