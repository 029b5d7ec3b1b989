#include "server/upload_call.h"

#include "tests/server/serving.h"

namespace hotlora {
namespace {

class UploadAdapterTest : public ServingTest {
 protected:
  void SetUp() override { Restart({}); }

  void Restart(ServerOptions options) {
    server_ = nullptr;
    Start(std::move(options));
    stub_ = v1::AdapterService::NewStub(channel_);
  }

  static v1::UploadAdapterRequest Header(const std::string& name, uint64_t size) {
    v1::UploadAdapterRequest message;
    message.mutable_header()->set_name(name);
    message.mutable_header()->set_size(size);
    message.mutable_header()->set_sha256(std::string(64, 'a'));
    return message;
  }
  static v1::UploadAdapterRequest Chunk(const std::string& bytes) {
    v1::UploadAdapterRequest message;
    message.set_chunk(bytes);
    return message;
  }

  grpc::Status Upload(const std::vector<v1::UploadAdapterRequest>& messages, const std::string& token = "") {
    auto context = Context(token);
    const auto writer = stub_->UploadAdapter(context.get(), &adapter_);
    for (const auto& message : messages) {
      if (!writer->Write(message)) {
        break;
      }
    }
    writer->WritesDone();
    return writer->Finish();
  }

  std::unique_ptr<v1::AdapterService::Stub> stub_;
  v1::Adapter adapter_;
};

TEST_F(UploadAdapterTest, ChunksArriveInOrder) {
  ASSERT_TRUE(Upload({Header("styles/neon", 6), Chunk("ab"), Chunk("cde"), Chunk("f")}).ok());
  EXPECT_EQ(engine_.Uploaded("styles/neon"), "abcdef");
  EXPECT_EQ(adapter_.name(), "styles/neon");
  EXPECT_EQ(adapter_.bytes(), 6u);
  EXPECT_EQ(Counted("UploadAdapter", "OK"), 1);
}

TEST_F(UploadAdapterTest, MessagesOutOfTurnAreRefused) {
  for (const auto& messages : std::vector<std::vector<v1::UploadAdapterRequest>>{
           {}, {Chunk("ab")}, {{}}, {Header("a", 1), Header("a", 1)}, {Header("a", 2), {}}}) {
    const grpc::Status status = Upload(messages);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  }
  EXPECT_EQ(engine_.Uploaded("a"), std::nullopt);
}

TEST_F(UploadAdapterTest, ARefusalReachesACallerWhoStillWrites) {
  engine_.RefuseNext(MakeError(absl::StatusCode::kAlreadyExists, "ADAPTER_EXISTS", "taken"));
  const std::vector<v1::UploadAdapterRequest> chunks(64, Chunk(std::string(1 << 20, 'x')));
  std::vector<v1::UploadAdapterRequest> messages = {Header("a", 64 << 20)};
  messages.insert(messages.end(), chunks.begin(), chunks.end());
  const grpc::Status status = Upload(messages);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  EXPECT_EQ(Reason(status), "ADAPTER_EXISTS");
}

TEST_F(UploadAdapterTest, ACallerWhoVanishesLeavesNothing) {
  {
    auto context = Context();
    const auto writer = stub_->UploadAdapter(context.get(), &adapter_);
    ASSERT_TRUE(writer->Write(Header("gone", 4)));
    ASSERT_TRUE(writer->Write(Chunk("ab")));
    engine_.AwaitUploadsBegun(1);
    context->TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  engine_.AwaitUploadsEnded(1);
  EXPECT_EQ(engine_.Uploaded("gone"), std::nullopt);
}

TEST_F(UploadAdapterTest, MoreUploadsThanMayAreTurnedAway) {
  const int most = UploadLimits().most_of_one;
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::UploadAdapterRequest>>> writers;
  std::vector<v1::Adapter> adapters(most);
  for (int i = 0; i < most; ++i) {
    contexts.push_back(Context());
    writers.push_back(stub_->UploadAdapter(contexts.back().get(), &adapters[i]));
    ASSERT_TRUE(writers.back()->Write(Header(absl::StrCat("a", i), 1)));
  }
  engine_.AwaitUploadsBegun(most);
  const grpc::Status status = Upload({Header("late", 1), Chunk("x")});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Reason(status), "UPLOADS_BUSY");
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(status).has_value());
  for (auto& writer : writers) {
    EXPECT_TRUE(writer->Write(Chunk("x")));
    writer->WritesDone();
    EXPECT_TRUE(writer->Finish().ok());
  }
  engine_.AwaitUploadsEnded(most);
}

// A caller who sends nothing more, or empty chunks alone, or goes on for ever: each ends with a status of its own, and
// another one may begin.
TEST_F(UploadAdapterTest, ACallerWhoStopsSendingIsGivenUp) {
  struct Case {
    absl::Duration silence, longest;
    std::vector<std::string> chunks;  // the last one again and again
    const char* reason;
  };
  for (const Case& test : {Case{absl::Milliseconds(200), absl::Hours(1), {}, "UPLOAD_STALLED"},
                           Case{absl::Milliseconds(200), absl::Hours(1), {"ab"}, "UPLOAD_STALLED"},
                           Case{absl::Milliseconds(200), absl::Hours(1), {"ab", ""}, "UPLOAD_STALLED"},
                           Case{absl::Hours(1), absl::Milliseconds(300), {"a"}, "UPLOAD_TOO_LONG"}}) {
    ServerOptions options;
    options.uploads.silence = test.silence;
    options.uploads.longest = test.longest;
    options.uploads.most = options.uploads.most_of_one = 1;
    Restart(std::move(options));
    auto context = Context();
    const auto writer = stub_->UploadAdapter(context.get(), &adapter_);
    ASSERT_TRUE(writer->Write(Header("slow", 1 << 30)));
    for (const std::string& chunk : test.chunks) {
      writer->Write(Chunk(chunk));
    }
    if (test.chunks.size() > 1 || test.longest < absl::Hours(1)) {
      while (writer->Write(Chunk(test.chunks.back()))) {  // until the server has ended the call
        absl::SleepFor(absl::Milliseconds(20));
      }
    }
    const grpc::Status status = writer->Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED) << status.error_message();
    EXPECT_EQ(Reason(status), test.reason);
    EXPECT_TRUE(Upload({Header("next", 1), Chunk("x")}).ok());
    EXPECT_EQ(engine_.Uploaded("slow"), std::nullopt);
  }
}

TEST_F(UploadAdapterTest, ACallerHasAQuota) {
  ServerOptions options;
  options.uploads.files_per_hour = 2;
  Restart(std::move(options));
  EXPECT_TRUE(Upload({Header("a", 1), Chunk("x")}).ok());
  EXPECT_FALSE(Upload({Header("b", 1), Chunk("too long")}).ok()) << "what fails counts too";
  const grpc::Status status = Upload({Header("c", 1), Chunk("x")});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Reason(status), "UPLOAD_QUOTA");
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(status).has_value());
}

TEST_F(UploadAdapterTest, EachTokenIsACallerOfItsOwn) {
  ServerOptions options;
  options.tokens = Tokens::Parse("0123456789abcdef adapters.write\nfedcba9876543210 adapters.write\n").value();
  options.uploads.files_per_hour = 1;
  Restart(std::move(options));
  EXPECT_TRUE(Upload({Header("a", 1), Chunk("x")}, "0123456789abcdef").ok());
  EXPECT_EQ(Reason(Upload({Header("b", 1), Chunk("x")}, "0123456789abcdef")), "UPLOAD_QUOTA");
  EXPECT_TRUE(Upload({Header("c", 1), Chunk("x")}, "fedcba9876543210").ok());
}

TEST_F(UploadAdapterTest, UploadsCanBeOff) {
  ASSERT_TRUE(Upload({Header("a", 1), Chunk("x")}).ok());
  ServerOptions options;
  options.uploads.served = false;
  Restart(std::move(options));
  const grpc::Status upload = Upload({Header("b", 1), Chunk("x")});
  EXPECT_EQ(upload.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Reason(upload), "UPLOADS_OFF");
  auto context = Context();
  v1::DeleteAdapterRequest request;
  request.set_name("a");
  google::protobuf::Empty nothing;
  const grpc::Status deletion = stub_->DeleteAdapter(context.get(), request, &nothing);
  EXPECT_EQ(deletion.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(Reason(deletion), "UPLOADS_OFF");
  auto reading = Context();
  v1::GetAdapterRequest get;
  get.set_name("a");
  EXPECT_TRUE(stub_->GetAdapter(reading.get(), get, &adapter_).ok());
}

TEST_F(UploadAdapterTest, DeletedIsNotFound) {
  ASSERT_TRUE(Upload({Header("a", 1), Chunk("x")}).ok());
  for (const auto code : {grpc::StatusCode::OK, grpc::StatusCode::NOT_FOUND}) {
    auto context = Context();
    v1::DeleteAdapterRequest request;
    request.set_name("a");
    google::protobuf::Empty nothing;
    EXPECT_EQ(stub_->DeleteAdapter(context.get(), request, &nothing).error_code(), code);
  }
  EXPECT_EQ(Counted("DeleteAdapter", "OK"), 1);
}

TEST_F(UploadAdapterTest, NeedsTheScopeThatChangesAdapters) {
  ServerOptions options;
  options.tokens = Tokens::Parse("0123456789abcdef adapters.read,generate\nfedcba9876543210 adapters.write\n").value();
  Restart(std::move(options));
  const std::vector<v1::UploadAdapterRequest> messages = {Header("a", 1), Chunk("x")};
  EXPECT_EQ(Upload(messages).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Upload(messages, "0123456789abcdef").error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(Upload(messages, "fedcba9876543210").ok());
  v1::DeleteAdapterRequest request;
  request.set_name("a");
  google::protobuf::Empty nothing;
  auto reader = Context("0123456789abcdef");
  EXPECT_EQ(stub_->DeleteAdapter(reader.get(), request, &nothing).error_code(), grpc::StatusCode::PERMISSION_DENIED);
  auto writer = Context("fedcba9876543210");
  EXPECT_TRUE(stub_->DeleteAdapter(writer.get(), request, &nothing).ok());
}

}  // namespace
}  // namespace hotlora
