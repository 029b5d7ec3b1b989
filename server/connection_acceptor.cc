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
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

#include "server/tcp_listener.h"
#include "src/base/logging.h"
#include "src/base/named_thread.h"

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
                                                                               std::function<void()> on_refused) {
  const auto listener = ListenAsGrpcDoes(listen);
  if (!listener.ok()) {
    return listener.status();
  }
  return std::unique_ptr<ConnectionAcceptor>(
      new ConnectionAcceptor(listener->socket, listener->port, std::move(on_refused)));
}

ConnectionAcceptor::ConnectionAcceptor(int listener, int port, std::function<void()> on_refused)
    : port_(port),
      on_refused_(std::move(on_refused)),
      largest_descriptor_(LargestDescriptor()),
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
  const int connection = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection < 0) {
    const int error = errno;
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
      NoteRefused(std::strerror(error));  // the connection stays in the kernel's queue
    }
    if (error != ECONNABORTED && error != EAGAIN) {  // else the caller has gone already
      pollfd stop{stop_event_, POLLIN, 0};
      poll(&stop, 1, kPauseMilliseconds);
    }
    return;
  }
  if (connection > largest_descriptor_) {
    close(connection);
    NoteRefused("nearly all descriptors are in use");
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

void ConnectionAcceptor::NoteRefused(const char* why) {
  ++taken_;
  quiet_from_ = std::chrono::steady_clock::now() + kRefusalCounts;
  on_refused_();
  if (warnings_.Take(absl::Now()).has_value()) {
    LogWarning("connections are refused: ", why, "; at most ", largest_descriptor_ + 1,
               " descriptors are for connections (raise the limit of open files)");
  }
}

}  // namespace hotlora
