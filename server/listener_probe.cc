#include "server/listener_probe.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace hotlora {
namespace {

constexpr auto kEvery = std::chrono::seconds(2);
constexpr auto kPatience = std::chrono::seconds(5);

}  // namespace

ListenerProbe::ListenerProbe(const ConnectionAcceptor* acceptor, Clock clock)
    : acceptor_(acceptor), clock_(std::move(clock)), opened_(clock_()), last_look_(opened_) {}

ListenerProbe::~ListenerProbe() { Close(); }

absl::Duration ListenerProbe::Look() {
  const auto now = clock_();
  if (now - std::exchange(last_look_, now) > kPatience) {
    Close();  // the process stood still, the acceptor with it
  }
  if (is_waiting_ && acceptor_->taken() != taken_before_) {
    deaf_since_.reset();
    Close();
  } else if (is_waiting_ && now - opened_ >= kPatience) {
    deaf_since_ = deaf_since_.value_or(opened_);
    Close();
  }
  if (!is_waiting_ && now - opened_ >= kEvery) {
    opened_ = now;
    Open();
  }
  return deaf_since_.has_value() ? absl::FromChrono(now - *deaf_since_) : absl::ZeroDuration();
}

void ListenerProbe::Open() {
  const sockaddr_storage& address = acceptor_->address();
  connection_ = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection_ < 0) {
    deaf_since_.reset();  // nothing can be told
    return;
  }
  taken_before_ = acceptor_->taken();
  is_waiting_ = true;
  // Whether this succeeds, fails or goes on, the acceptor shows whether it was heard. Linux takes the address that
  // means all of a machine's for the loopback.
  connect(connection_, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  pollfd made{connection_, POLLOUT, 0};
  if (poll(&made, 1, 0) == 1) {
    close(std::exchange(connection_, -1));  // it is in the kernel's queue, and needs no descriptor there
  }
}

void ListenerProbe::Close() {
  is_waiting_ = false;
  if (connection_ >= 0) {
    close(std::exchange(connection_, -1));
  }
}

}  // namespace hotlora
