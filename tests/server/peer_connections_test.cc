// What one peer may have open, with real sockets: the kernel's own word says which are closed.

#include "server/peer_connections.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include <gtest/gtest.h>

#include "server/connection_acceptor.h"
#include "tests/server/loopback_connection.h"

namespace hotlora {
namespace {

int NewSocket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

TEST(PeerConnectionsTest, EachPeerHasAsManyAsItMay) {
  PeerConnections connections(2);
  const int a1 = NewSocket(), a2 = NewSocket(), a3 = NewSocket(), b1 = NewSocket();
  EXPECT_TRUE(connections.Add("a", a1));
  EXPECT_TRUE(connections.Add("a", a2));
  EXPECT_FALSE(connections.Add("a", a3));
  EXPECT_TRUE(connections.Add("b", b1));
  close(a1);
  EXPECT_TRUE(connections.Add("a", a3)) << "one of them is closed";
  const int a4 = NewSocket();
  ASSERT_EQ(a4, a1) << "the kernel gives the lowest number";
  EXPECT_FALSE(connections.Add("a", a4)) << "a number that is used again is another connection";
  for (const int descriptor : {a2, a3, a4, b1}) {
    close(descriptor);
  }
}

TEST(PeerConnectionsTest, AnotherPeersSocketOfTheSameNumberIsNotTheirs) {
  PeerConnections connections(1);
  const int a = NewSocket();
  EXPECT_TRUE(connections.Add("a", a));
  close(a);
  const int b = NewSocket();
  ASSERT_EQ(b, a);
  EXPECT_TRUE(connections.Add("b", b));
  const int again = NewSocket();
  EXPECT_TRUE(connections.Add("a", again));
  EXPECT_FALSE(connections.Add("b", NewSocket()));
  close(b);
  close(again);
}

// Keeps the connections, as gRPC does.
class Holder : public ConnectionAcceptor::Target {
 public:
  void HandleNewConnection(NewConnectionParameters* parameters) override {
    std::lock_guard<std::mutex> lock(mu_);
    held_.push_back(parameters->fd);
    changed_.notify_all();
  }
  std::vector<int> AwaitHeld(size_t count) {
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait_for(lock, std::chrono::seconds(60), [&] { return held_.size() >= count; });
    return held_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<int> held_;
};

class ConnectionAcceptorTest : public ::testing::Test {
 protected:
  void Start(bool unlimited) {
    ConnectionAcceptor::Options options;
    options.most_of_one_peer = 2;
    options.is_unlimited = [unlimited](const IpAddress& peer) { return unlimited && peer.is_loopback(); };
    options.on_refused = [this](ConnectionRefusal reason) { refused_.push_back(reason); };
    auto listening = ConnectionAcceptor::Listen("127.0.0.1:0", std::move(options));
    ASSERT_TRUE(listening.ok()) << listening.status();
    acceptor_ = *std::move(listening);
    auto holder = std::make_unique<Holder>();
    holder_ = holder.get();
    acceptor_->Start(std::move(holder));
  }

  std::unique_ptr<ConnectionAcceptor> acceptor_;
  Holder* holder_ = nullptr;
  std::vector<ConnectionRefusal> refused_;  // of the acceptor's thread, until it has stopped
};

TEST_F(ConnectionAcceptorTest, AConnectionTooManyOfOnePeerIsClosed) {
  Start(/*unlimited=*/false);
  const int first = ConnectToLoopback(acceptor_->port(), 60), second = ConnectToLoopback(acceptor_->port(), 60);
  const std::vector<int> held = holder_->AwaitHeld(2);
  const int third = ConnectToLoopback(acceptor_->port(), 60);
  char byte;
  EXPECT_EQ(read(third, &byte, 1), 0) << "closed by the server";
  EXPECT_FALSE(acceptor_->refuses()) << "other callers are served";
  close(held[0]);
  const int fourth = ConnectToLoopback(acceptor_->port(), 60);
  EXPECT_EQ(holder_->AwaitHeld(3).size(), 3u);
  acceptor_->Stop();
  EXPECT_EQ(refused_, std::vector<ConnectionRefusal>{ConnectionRefusal::kPeer});
  for (const int connection : {first, second, third, fourth}) {
    close(connection);
  }
}

TEST_F(ConnectionAcceptorTest, AProxyMayHaveAnyNumber) {
  Start(/*unlimited=*/true);
  std::vector<int> connections;
  for (int i = 0; i < 5; ++i) {
    connections.push_back(ConnectToLoopback(acceptor_->port(), 60));
  }
  EXPECT_EQ(holder_->AwaitHeld(5).size(), 5u);
  acceptor_->Stop();
  EXPECT_TRUE(refused_.empty());
  for (const int connection : connections) {
    close(connection);
  }
}

}  // namespace
}  // namespace hotlora
