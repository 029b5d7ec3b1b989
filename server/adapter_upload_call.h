#ifndef HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_
#define HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_

#include "hotlora/v1/adapters.grpc.pb.h"
#include "server/rpc_call.h"
#include "src/base/serial_executor.h"

namespace hotlora {

// Uploads under way at one time; others are RESOURCE_EXHAUSTED (UPLOADS_BUSY), with a retry delay.
inline constexpr int kMaxUploads = 8;

// Begins UploadAdapter: each message is written by `upload_thread` before gRPC reads the next one, so a call holds one
// chunk in memory, and the disk sets the caller's pace.
grpc::ServerReadReactor<v1::UploadAdapterRequest>* StartUpload(ServiceContext* service, SerialExecutor* upload_thread,
                                                               grpc::CallbackServerContext* context,
                                                               v1::Adapter* response);

}  // namespace hotlora

#endif  // HOTLORA_SERVER_ADAPTER_UPLOAD_CALL_H_
