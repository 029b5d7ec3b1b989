#ifndef HOTLORA_SERVER_SEND_WATCH_H_
#define HOTLORA_SERVER_SEND_WATCH_H_

#include <cstddef>
#include <memory>

#include <grpcpp/server_context.h>

#include "server/rpc_call.h"

namespace hotlora {

// Gives up a caller who does not read: cancels the call if a message, or its end, stays in gRPC's hands for too long.
// Without it such a caller holds the answer's memory, and a server that wants to stop, for as long as it answers pings.
// Thread-safe.
class SendWatch {
 public:
  static constexpr double kLeastBytesPerSecond = 256 * 1024;

  // As long as `service` says.
  SendWatch(ServiceContext* service, grpc::CallbackServerContext* context);
  ~SendWatch();
  SendWatch(const SendWatch&) = delete;
  SendWatch& operator=(const SendWatch&) = delete;

  // So many bytes were handed to gRPC. A caller who reads slowly has further time for them, at kLeastBytesPerSecond.
  void Sending(size_t bytes = 0);
  void Sent();  // gRPC has passed it on
  void Done();  // gRPC's last reaction: `context` is not used any more

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_SEND_WATCH_H_
