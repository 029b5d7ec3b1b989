// What ThreadSanitizer must not report: gRPC and Abseil are Debian's, built without it, so it sees neither their locks
// nor their atomics, and takes what gRPC hands from thread to thread for unguarded. Only frames of gRPC's own are named
// here; a race in our code is on top of the stack and still shows. Compiled into the test programs; does nothing in
// other builds.

extern "C" const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1 history_size=7"; }

extern "C" const char* __tsan_default_suppressions() {
  return
      // As tests/tsan_abseil.cc.
      "race:absl::debian3::Condition::\n"
      "race:CastAndCall\n"
      // The operations of one batch: filled by the thread that starts it, finished by the one that polls.
      "race:grpc::internal::InterceptorBatchMethodsImpl\n"
      "race:grpc::internal::CallOp\n"
      "race:grpc::ByteBuffer\n"
      // A stream's next message, parsed by the thread that polls into what another thread asked to have filled.
      "race:google::protobuf::MessageLite::ParseFromZeroCopyStream\n"
      "race:google::protobuf::internal::MergeFromImpl\n"
      // The callback that a batch ends with, and the call object around it. Our reactions run inside of these: top
      // frame only.
      "race_top:grpc::internal::\n"
      "race_top:std::function<void (bool)>\n"
      "race_top:std::_Function_base::_M_empty\n"
      "race:grpc::internal::ServerCallbackCall::Unref\n"
      // What an alarm runs, which gRPC hands from the thread that set it to one of its own.
      "race:grpc::internal::AlarmImpl\n"
      // What a reactor was asked before gRPC knew of it, under gRPC's own lock.
      "race:InternalBindCall\n"
      "race:PreBindBacklog\n"
      "race:grpc::internal::CallbackWithSuccessTag::Set\n"
      "race:grpc::internal::CallbackWithSuccessTag::Clear\n";
}
