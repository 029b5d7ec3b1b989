#ifndef HOTLORA_SERVER_UNPARSED_SERVICE_H_
#define HOTLORA_SERVER_UNPARSED_SERVICE_H_

// gRPC services whose requests arrive as bytes, so that a call is authorized before work goes into its message, and so
// that a message which cannot be parsed ends as every other bad request does. gRPC's generated services parse first,
// and answer what they cannot parse with UNIMPLEMENTED, without a message and past our logs and figures.

#include <deque>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "src/base/error_details.h"
#include "src/base/error_reason.h"

namespace hotlora {

// A message as it came. Not thread-safe.
template <typename Message>
class Unparsed {
 public:
  // The message; its bytes are freed, so call it once. InvalidArgument if they are not such a message: broken protobuf,
  // or text that is not UTF-8.
  absl::StatusOr<Message> Parse() const {
    Message message;
    if (!grpc::SerializationTraits<Message>::Deserialize(&bytes_, &message).ok()) {
      return MakeError(absl::StatusCode::kInvalidArgument, error_reason::kInvalidRequest,
                       absl::StrCat("the message is not a ", Message::descriptor()->full_name(),
                                    ": its bytes are broken, or a text in it is not valid UTF-8"));
    }
    return message;
  }

  // Frees the bytes of a message that is not parsed: gRPC keeps this object until the call has ended.
  void Drop() const { bytes_.Clear(); }

 private:
  friend class grpc::SerializationTraits<Unparsed<Message>>;
  mutable grpc::ByteBuffer bytes_;
};

// A service of methods that their class adds in its constructor.
class UnparsedService : public grpc::Service {
 protected:
  // `full_name`: with its package.
  explicit UnparsedService(const char* full_name) : full_name_(full_name) {}

  template <typename Owner, typename Request, typename Response>
  void AddUnary(const char* name, grpc::ServerUnaryReactor* (Owner::*answer)(grpc::CallbackServerContext*,
                                                                             const Unparsed<Request>*, Response*)) {
    Add(name, grpc::internal::RpcMethod::NORMAL_RPC,
        new grpc::internal::CallbackUnaryHandler<Unparsed<Request>, Response>(
            [this, answer](grpc::CallbackServerContext* context, const Unparsed<Request>* request, Response* response) {
              return (static_cast<Owner*>(this)->*answer)(context, request, response);
            }));
  }

  template <typename Owner, typename Request, typename Response>
  void AddServerStreaming(const char* name,
                          grpc::ServerWriteReactor<Response>* (Owner::*answer)(grpc::CallbackServerContext*,
                                                                               const Unparsed<Request>*)) {
    Add(name, grpc::internal::RpcMethod::SERVER_STREAMING,
        new grpc::internal::CallbackServerStreamingHandler<Unparsed<Request>, Response>(
            [this, answer](grpc::CallbackServerContext* context, const Unparsed<Request>* request) {
              return (static_cast<Owner*>(this)->*answer)(context, request);
            }));
  }

  template <typename Owner, typename Request, typename Response>
  void AddClientStreaming(const char* name,
                          grpc::ServerReadReactor<Unparsed<Request>>* (Owner::*answer)(grpc::CallbackServerContext*,
                                                                                       Response*)) {
    Add(name, grpc::internal::RpcMethod::CLIENT_STREAMING,
        new grpc::internal::CallbackClientStreamingHandler<Unparsed<Request>, Response>(
            [this, answer](grpc::CallbackServerContext* context, Response* response) {
              return (static_cast<Owner*>(this)->*answer)(context, response);
            }));
  }

 private:
  void Add(const char* name, grpc::internal::RpcMethod::RpcType type, grpc::internal::MethodHandler* handler) {
    paths_.push_back(absl::StrCat("/", full_name_, "/", name));
    AddMethod(new grpc::internal::RpcServiceMethod(paths_.back().c_str(), type, nullptr));
    MarkMethodCallback(static_cast<int>(paths_.size()) - 1, handler);
  }

  const char* const full_name_;
  std::deque<std::string> paths_;  // gRPC keeps pointers to them
};

}  // namespace hotlora

namespace grpc {

template <typename Message>
class SerializationTraits<hotlora::Unparsed<Message>> {
 public:
  static Status Deserialize(ByteBuffer* bytes, hotlora::Unparsed<Message>* message) {
    message->bytes_.Clear();
    message->bytes_.Swap(bytes);
    return Status::OK;
  }
};

}  // namespace grpc

#endif  // HOTLORA_SERVER_UNPARSED_SERVICE_H_
