#include "server/adapter_upload_call.h"

#include "tests/server/serving.h"

namespace hotlora {
namespace {

class UploadAdapterTest : public ServingTest {
 protected:
  void SetUp() override {
    Start();
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
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::UploadAdapterRequest>>> writers;
  std::vector<v1::Adapter> adapters(kMaxUploads);
  for (int i = 0; i < kMaxUploads; ++i) {
    contexts.push_back(Context());
    writers.push_back(stub_->UploadAdapter(contexts.back().get(), &adapters[i]));
    ASSERT_TRUE(writers.back()->Write(Header(absl::StrCat("a", i), 1)));
  }
  engine_.AwaitUploadsBegun(kMaxUploads);
  const grpc::Status status = Upload({Header("late", 1), Chunk("x")});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Reason(status), "UPLOADS_BUSY");
  EXPECT_TRUE(FindDetail<google::rpc::RetryInfo>(status).has_value());
  for (auto& writer : writers) {
    EXPECT_TRUE(writer->Write(Chunk("x")));
    writer->WritesDone();
    EXPECT_TRUE(writer->Finish().ok());
  }
  engine_.AwaitUploadsEnded(kMaxUploads);
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
  server_ = nullptr;
  ServerOptions options;
  options.tokens = Tokens::Parse("0123456789abcdef adapters.read,generate\nfedcba9876543210 adapters.write\n").value();
  Start(std::move(options));
  stub_ = v1::AdapterService::NewStub(channel_);
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
