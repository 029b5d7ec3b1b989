#ifndef HOTLORA_SERVER_LISTENER_PROBE_H_
#define HOTLORA_SERVER_LISTENER_PROBE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "absl/time/time.h"

#include "server/connection_acceptor.h"

namespace hotlora {

// Connects to the own gRPC port every 2 s and looks whether the acceptor takes a connection within 5 s. If it does not,
// the port is deaf: callers' connections wait in the kernel, and nothing else in this process would show it. Not
// thread-safe.
class ListenerProbe {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;

  // `acceptor` outlives this object.
  explicit ListenerProbe(const ConnectionAcceptor* acceptor, Clock clock = &std::chrono::steady_clock::now);
  ~ListenerProbe();

  // For how long the port has accepted no connection; zero while it does, or while no descriptor is free for a
  // connection. Never waits. Call it every second.
  absl::Duration Look();

 private:
  void Open();
  void Close();

  const ConnectionAcceptor* const acceptor_;
  const Clock clock_;
  int connection_ = -1;      // while it is being made
  bool is_waiting_ = false;  // until the acceptor takes a connection
  uint64_t taken_before_ = 0;
  std::chrono::steady_clock::time_point opened_, last_look_;
  std::optional<std::chrono::steady_clock::time_point> deaf_since_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_LISTENER_PROBE_H_
