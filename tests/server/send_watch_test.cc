// Callers who answer pings and read nothing: HTTP/2 frames by hand (RFC 9113), with windows of 0 bytes, so that the
// server may send headers and no data.

#include "server/send_watch.h"

#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

#include "tests/server/loopback_connection.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

enum Frame : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6 };
constexpr uint8_t kAck = 1, kEndStream = 1, kEndHeaders = 4;

class DeafCaller {
 public:
  DeafCaller(int port, const std::string& path, const std::string& message) : connection_(ConnectToLoopback(port, 30)) {
    Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    Send(kSettings, 0, 0, std::string("\x00\x04\x00\x00\x00\x00", 6));  // SETTINGS_INITIAL_WINDOW_SIZE 0
    std::string headers;
    for (const auto& [name, value] : {std::pair<std::string, std::string>{":method", "POST"},
                                      {":scheme", "http"},
                                      {":path", path},
                                      {":authority", "localhost"},
                                      {"content-type", "application/grpc"},
                                      {"te", "trailers"}}) {
      headers += std::string(1, '\0') + Counted(name) + Counted(value);  // a literal that no table holds
    }
    Send(kHeaders, kEndHeaders, 1, headers);
    const std::string size = {'\0', '\0', '\0', '\0', static_cast<char>(message.size())};
    Send(kData, kEndStream, 1, size + message);
  }
  ~DeafCaller() { close(connection_); }

  // Whether the server resets the call. Pings are answered meanwhile.
  bool IsReset() {
    for (std::string header; Read(9, &header);) {
      const auto byte = [&](int i) { return static_cast<uint8_t>(header[i]); };
      std::string payload;
      if (!Read(byte(0) << 16 | byte(1) << 8 | byte(2), &payload)) {
        return false;
      }
      if (byte(3) == kReset) {
        return true;
      }
      if (byte(3) == kPing && (byte(4) & kAck) == 0) {
        Send(kPing, kAck, 0, payload);
      }
    }
    return false;
  }

 private:
  static std::string Counted(const std::string& text) { return static_cast<char>(text.size()) + text; }

  void Send(const std::string& bytes) {
    EXPECT_EQ(send(connection_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  void Send(Frame kind, uint8_t flags, uint8_t stream, const std::string& payload) {
    const size_t size = payload.size();
    Send(std::string{static_cast<char>(size >> 16), static_cast<char>(size >> 8), static_cast<char>(size),
                     static_cast<char>(kind), static_cast<char>(flags), '\0', '\0', '\0', static_cast<char>(stream)} +
         payload);
  }
  bool Read(size_t size, std::string* bytes) {
    bytes->assign(size, '\0');
    return size == 0 || recv(connection_, bytes->data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
  }

  const int connection_;
};

class SendWatchTest : public ServingTest {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.send_patience = absl::Milliseconds(100);
    Start(std::move(options));
    engine_.AddAdapter({});
    engine_.SetScript([](const FakeEngine::Submission& submission) {
      submission.listener->OnImage(ImageOf(0, 1000));
      submission.listener->OnEnd(absl::OkStatus(), {});
    });
  }

  int GivenUp() {
    const std::string text = metrics_.Render();
    const std::string name = "\nhotlora_slow_readers_cancelled_total ";
    return std::stoi(text.substr(text.find(name) + name.size()));
  }
};

TEST_F(SendWatchTest, ACallerWhoReadsNothingIsGivenUpInEveryMethodThatAnswersWithData) {
  openai::v1::CreateImageRequest create;
  create.set_prompt("a lighthouse");
  const std::pair<const char*, std::string> calls[] = {
      {"/hotlora.v1.ServerService/GetServerInfo", ""},
      {"/hotlora.v1.AdapterService/ListAdapters", ""},
      {"/hotlora.v1.AdapterService/LoadAdapter", ""},
      {"/hotlora.v1.ServerService/VerifyBase", ""},
      {"/hotlora.v1.ImageService/GenerateImages", Request().SerializeAsString()},
      {"/hotlora.v1.ImageService/RenderImage", Request().SerializeAsString()},
      {"/hotlora.v1.ImageService/StreamGenerateImages", Request().SerializeAsString()},
      {"/hotlora.openai.v1.ImagesService/CreateImage", create.SerializeAsString()},
      {"/hotlora.openai.v1.ImagesService/ListModels", ""},
  };
  int given_up = 0;
  for (const auto& [path, message] : calls) {
    EXPECT_TRUE(DeafCaller(server_->port(), path, message).IsReset()) << path;
    EXPECT_EQ(GivenUp(), ++given_up) << path;
  }
  EXPECT_TRUE(server_->Stop(absl::Seconds(10)));
}

TEST_F(SendWatchTest, ACallerWhoReadsIsNotGivenUpHoweverLongTheCallTakes) {
  engine_.SetScript(nullptr);
  auto context = Context();
  auto reader = v1::ImageService::NewStub(channel_)->StreamGenerateImages(context.get(), Request());
  const auto submission = engine_.AwaitSubmission();
  v1::GenerateImagesEvent event;
  ASSERT_TRUE(reader->Read(&event));  // accepted
  for (int i = 0; i < 3; ++i) {
    absl::SleepFor(absl::Milliseconds(150));  // beyond the patience, with nothing to send
    submission.listener->OnProgress({0, 1, 2, 0.25});
    EXPECT_TRUE(reader->Read(&event));
  }
  submission.listener->OnEnd(absl::OkStatus(), {});
  while (reader->Read(&event)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(GivenUp(), 0);
}

}  // namespace
}  // namespace hotlora
