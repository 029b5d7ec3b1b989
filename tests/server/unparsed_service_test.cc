#include "server/unparsed_service.h"

#include <future>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <grpcpp/generic/generic_stub.h>

#include "tests/server/serving.h"

namespace hotlora {
namespace {

constexpr char kToken[] = "0123456789abcdef";

// Calls with bytes that are not a message of their method.
class UnparsedServiceTest : public ServingTest {
 protected:
  grpc::Status Call(const google::protobuf::MethodDescriptor& method, const std::string& bytes,
                    const std::string& token = "") {
    grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer> stub(channel_);
    auto context = Context(token);
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    std::promise<grpc::Status> ended;
    stub.UnaryCall(context.get(), absl::StrCat("/", method.service()->full_name(), "/", method.name()), {}, &request,
                   &response, [&](grpc::Status status) { ended.set_value(std::move(status)); });
    return ended.get_future().get();
  }

  static std::vector<const google::protobuf::MethodDescriptor*> Methods() {
    std::vector<const google::protobuf::MethodDescriptor*> methods;
    for (const char* service :
         {v1::ImageService::service_full_name(), v1::AdapterService::service_full_name(),
          v1::ServerService::service_full_name(), openai::v1::ImagesService::service_full_name()}) {
      const auto* found = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
      for (int i = 0; i < found->method_count(); ++i) {
        methods.push_back(found->method(i));
      }
    }
    return methods;
  }
};

TEST_F(UnparsedServiceTest, BrokenMessagesAreBadRequestsOfEveryMethod) {
  Start();
  const std::string broken[] = {
      std::string("\x0a\xff"),       // a text that is longer than the message
      std::string("\x0a"),           // a tag alone
      std::string("\x0c"),           // the end of a group that has not begun
      std::string(11, '\xff'),       // a number without end
      std::string("\x07\x00", 2),    // a wire type that is not one
      std::string(200, '\x0b'),      // groups in groups
      std::string(100'000, '\x0b'),  // and more of them than a stack would hold
  };
  int sent = 0;
  for (const std::string& bytes : broken) {
    ++sent;
    for (const auto* method : Methods()) {
      const grpc::Status status = Call(*method, bytes);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method->name() << status.error_message();
      EXPECT_EQ(Reason(status), "INVALID_REQUEST") << method->name();
      EXPECT_NE(status.error_message().find(method->input_type()->full_name()), std::string::npos);
      EXPECT_EQ(Counted(method->name(), "INVALID_ARGUMENT"), sent) << method->name();
    }
  }
}

TEST_F(UnparsedServiceTest, TextThatIsNotUtf8IsABadRequest) {
  Start();
  for (const auto* method : Methods()) {
    const google::protobuf::Descriptor* const type = method->input_type();
    for (int i = 0; i < type->field_count(); ++i) {
      if (type->field(i)->type() == google::protobuf::FieldDescriptor::TYPE_STRING && type->field(i)->number() < 16) {
        const std::string tag(1, static_cast<char>(type->field(i)->number() << 3 | 2));
        const grpc::Status status = Call(*method, tag + "\x02\xc3\x28");
        EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << type->field(i)->full_name();
        EXPECT_EQ(Reason(status), "INVALID_REQUEST") << type->field(i)->full_name();
      }
    }
  }
}

TEST_F(UnparsedServiceTest, TheTokenIsCheckedBeforeTheMessageIsParsed) {
  ServerOptions options;
  options.tokens = Tokens::Parse(absl::StrCat(kToken, " admin\n")).value();
  Start(std::move(options));
  for (const auto* method : Methods()) {
    EXPECT_EQ(Call(*method, "\x0a").error_code(), grpc::StatusCode::UNAUTHENTICATED) << method->name();
    EXPECT_EQ(Call(*method, "\x0a", kToken).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << method->name();
  }
}

}  // namespace
}  // namespace hotlora
