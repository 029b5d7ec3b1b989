#ifndef HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_
#define HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_

#include "hotlora/v1/adapters.grpc.pb.h"
#include "server/rpc_call.h"
#include "server/unparsed_service.h"
#include "src/base/serial_executor.h"

namespace hotlora {

// Begins UploadAdapter within the limits of `service`'s UploadGate: each message is written by `upload_thread` before
// gRPC reads the next one, so a call holds one chunk in memory, and the disk sets the caller's pace. A call that brings
// no byte for a while, or takes too long in all, ends with DEADLINE_EXCEEDED (UPLOAD_STALLED, UPLOAD_TOO_LONG).
grpc::ServerReadReactor<Unparsed<v1::UploadAdapterRequest>>* StartUpload(ServiceContext* service,
                                                                         SerialExecutor* upload_thread,
                                                                         grpc::CallbackServerContext* context,
                                                                         v1::Adapter* response);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_
