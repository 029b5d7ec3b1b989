#include "server/connection_acceptor.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

#include "server/tcp_listener.h"
#include "src/base/logging.h"
#include "src/base/named_thread.h"
#include "src/base/steady_time.h"

namespace hotlora {
namespace {

constexpr auto kRefusalCounts = std::chrono::seconds(5);
constexpr int kPauseMilliseconds = 50;
// Descriptors that connections leave to files and to the metrics port: a quarter, and no more than these.
constexpr uint64_t kMostSetAside = 1024;

// The kernel gives the lowest free number, so a high number says that nearly all are in use.
int LargestDescriptor() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  const uint64_t limit = std::min<uint64_t>(files.rlim_cur, INT_MAX);
  return static_cast<int>(limit - std::min(limit / 4, kMostSetAside)) - 1;
}

absl::StatusOr<TcpListener> ListenAsGrpcDoes(const std::string& listen) {
  absl::string_view port = listen;
  if (absl::ConsumePrefix(&port, "0.0.0.0:")) {
    if (auto both = ListenTcp(absl::StrCat("[::]:", port)); both.ok()) {
      return both;
    }
  }
  return ListenTcp(listen);
}

}  // namespace

uint64_t RaiseFileLimit() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_cur < files.rlim_max) {
    rlimit most = files;
    most.rlim_cur = most.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &most) == 0) {
      files = most;
    }
  }
  return files.rlim_cur;
}

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Listen(const std::string& listen,
                                                                               Options options) {
  const auto listener = ListenAsGrpcDoes(listen);
  if (!listener.ok()) {
    return listener.status();
  }
  return std::unique_ptr<ConnectionAcceptor>(
      new ConnectionAcceptor(listener->socket, listener->port, std::move(options)));
}

ConnectionAcceptor::ConnectionAcceptor(int listener, int port, Options options)
    : port_(port),
      options_(std::move(options)),
      largest_descriptor_(LargestDescriptor()),
      most_of_one_peer_(std::min(options_.most_of_one_peer, largest_descriptor_ / 2)),
      connections_(most_of_one_peer_),
      listener_(listener),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  socklen_t size = sizeof(address_);
  getsockname(listener_, reinterpret_cast<sockaddr*>(&address_), &size);
}

ConnectionAcceptor::~ConnectionAcceptor() {
  Stop();
  close(stop_event_);
}

void ConnectionAcceptor::Start(std::unique_ptr<Target> target) {
  target_ = std::move(target);
  thread_ = StartNamedThread("accept", [this] { Run(); });
}

void ConnectionAcceptor::Stop() {
  if (thread_.joinable()) {
    eventfd_write(stop_event_, 1);
    thread_.join();
  }
  if (listener_ >= 0) {
    close(listener_);
    listener_ = -1;
  }
}

bool ConnectionAcceptor::refuses() const { return std::chrono::steady_clock::now() < quiet_from_.load(); }

void ConnectionAcceptor::Run() {
  pollfd wanted[] = {{stop_event_, POLLIN, 0}, {listener_, POLLIN, 0}};
  while (true) {
    poll(wanted, 2, -1);
    if (wanted[0].revents != 0) {
      return;
    }
    if (wanted[1].revents != 0) {
      TakeOne();
    }
  }
}

void ConnectionAcceptor::TakeOne() {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  const int connection = accept4(listener_, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection < 0) {
    const int error = errno;
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
      NoteShortOfDescriptors(std::strerror(error));  // the connection stays in the kernel's queue
    }
    if (error != ECONNABORTED && error != EAGAIN) {  // else the caller has gone already
      pollfd stop{stop_event_, POLLIN, 0};
      poll(&stop, 1, kPauseMilliseconds);
    }
    return;
  }
  char first;
  if (recv(connection, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {  // closed again already, as ListenerProbe does
    ++taken_;
    close(connection);
    return;
  }
  if (!MayStay(peer, connection)) {
    close(connection);
    return;
  }
  const int on = 1;
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  Target::NewConnectionParameters parameters;
  parameters.listener_fd = listener_;
  parameters.fd = connection;
  target_->HandleNewConnection(&parameters);
  ++taken_;
}

bool ConnectionAcceptor::MayStay(const sockaddr_storage& peer, int connection) {
  if (connection > largest_descriptor_) {
    NoteShortOfDescriptors("nearly all descriptors are in use");
    return false;
  }
  const std::optional<IpAddress> address = IpAddress::Of(peer);
  if (!address.has_value() || options_.is_unlimited(*address) || connections_.Add(address->Network(), connection)) {
    return true;
  }
  ++taken_;
  options_.on_refused(ConnectionRefusal::kPeer);
  if (peer_warnings_.Take(SteadyNow()).has_value()) {
    LogWarning("connections of ", address->Network(), " are refused: it has ", most_of_one_peer_,
               " open; a proxy may have more (--trusted-proxy)");
  }
  return false;
}

void ConnectionAcceptor::NoteShortOfDescriptors(const char* why) {
  ++taken_;
  quiet_from_ = std::chrono::steady_clock::now() + kRefusalCounts;
  options_.on_refused(ConnectionRefusal::kDescriptors);
  if (warnings_.Take(SteadyNow()).has_value()) {
    LogWarning("connections are refused: ", why, "; at most ", largest_descriptor_ + 1,
               " descriptors are for connections (raise the limit of open files)");
  }
}

}  // namespace hotlora
