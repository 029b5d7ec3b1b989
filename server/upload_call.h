#ifndef HOTLORA_SERVER_UPLOAD_CALL_H_
#define HOTLORA_SERVER_UPLOAD_CALL_H_

#include "server/rpc_call.h"
#include "server/store_calls.h"
#include "server/unparsed_service.h"
#include "src/base/serial_executor.h"

namespace hotlora {

// Begins an upload of `Calls` (store_calls.h) within the limits of `service`'s UploadGate: each message is written by
// `upload_thread` before gRPC reads the next one, so a call holds one chunk in memory, and the disk sets the caller's
// pace. A call that brings no byte for a while, or takes too long in all, ends with DEADLINE_EXCEEDED (UPLOAD_STALLED,
// UPLOAD_TOO_LONG).
template <typename Calls>
grpc::ServerReadReactor<Unparsed<typename Calls::UploadRequest>>* StartUpload(ServiceContext* service,
                                                                              SerialExecutor* upload_thread,
                                                                              grpc::CallbackServerContext* context,
                                                                              typename Calls::Item* response);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_UPLOAD_CALL_H_
