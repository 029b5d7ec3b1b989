#include "server/reloader.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "src/base/logging.h"
#include "tests/server/serving.h"

namespace hotlora {
namespace {

constexpr char kFirst[] = "0123456789abcdef";
constexpr char kSecond[] = "fedcba9876543210";

class ReloaderTest : public ServingTest {
 protected:
  ReloaderTest() : folder_(absl::StrCat(::testing::TempDir(), "/reloader_test.", getpid())) {
    std::filesystem::create_directory(folder_);
    Write("tokens", absl::StrCat(kFirst, " admin\n"));
    Write("config", "model = 'm'\nlog_level = 'info'\n");
    flags_ = ReadFlags().value();
    ServerOptions options;
    options.tokens = ReadTokens(flags_.tokens_file).value();
    Start(std::move(options));
    reloader_.emplace(
        flags_, [this] { return ReadFlags(); }, server_.get(), &metrics_.calls());
  }
  ~ReloaderTest() override {
    ExchangeLogLevel(LogLevel::kInfo);
    std::filesystem::remove_all(folder_);
  }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  absl::StatusOr<Flags> ReadFlags() {
    return ParseFlags({"--config", folder_ + "/config", "--tokens-file", folder_ + "/" + tokens_name_}, {});
  }

  bool CanCall(const std::string& token) {
    v1::ServerInfo info;
    auto context = Context(token);
    return v1::ServerService::NewStub(channel_)->GetServerInfo(context.get(), {}, &info).ok();
  }

  bool Counted(const std::string& outcome, int times) {
    return absl::StrContains(metrics_.Render(),
                             absl::StrCat("hotlora_config_reloads_total{outcome=\"", outcome, "\"} ", times, "\n"));
  }

  const std::string folder_;
  std::string tokens_name_ = "tokens";
  Flags flags_;
  std::optional<Reloader> reloader_;
};

TEST_F(ReloaderTest, TakesNewTokensAndTheLogLevel) {
  EXPECT_TRUE(CanCall(kFirst));
  Write("tokens", absl::StrCat(kSecond, " admin\n"));
  Write("config", "model = 'm'\nlog_level = 'debug'\n");
  EXPECT_FALSE(CanCall(kSecond));  // until it is told
  EXPECT_EQ(reloader_->Reload(), absl::OkStatus());
  EXPECT_FALSE(CanCall(kFirst));
  EXPECT_TRUE(CanCall(kSecond));
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kDebug);
  EXPECT_TRUE(Counted("ok", 1) && Counted("error", 0));
}

TEST_F(ReloaderTest, AFaultAnywhereLeavesAllAsItWas) {
  struct Case {
    const char* name;
    const char* tokens;
    const char* config;
    const char* message;
  };
  const std::string good_tokens = absl::StrCat(kSecond, " admin\n");
  const Case cases[] = {
      {"broken tokens", "short admin\n", "model = 'm'\nlog_level = 'debug'\n", "--tokens-file "},
      {"no tokens", "# none\n", "model = 'm'\nlog_level = 'debug'\n", "--tokens-file "},
      {"unknown key", good_tokens.c_str(), "model = 'm'\nlog_level = 'debug'\nx = 1\n", "\"x\""},
      {"bad value", good_tokens.c_str(), "model = 'm'\nlog_level = 'loud'\n", "log_level"},
      {"no TOML", good_tokens.c_str(), "model = ", "--config "},
  };
  int errors = 0;
  for (const Case& c : cases) {
    Write("tokens", c.tokens);
    Write("config", c.config);
    const absl::Status status = reloader_->Reload();
    EXPECT_TRUE(absl::StrContains(status.message(), c.message)) << c.name << ": " << status;
    EXPECT_TRUE(CanCall(kFirst)) << c.name;
    EXPECT_FALSE(CanCall(kSecond)) << c.name;
    EXPECT_EQ(CurrentLogLevel(), LogLevel::kInfo) << c.name;
    EXPECT_TRUE(Counted("error", ++errors) && Counted("ok", 0)) << c.name;
  }
}

TEST_F(ReloaderTest, AnotherFileNeedsARestart) {
  tokens_name_ = "others";
  Write("others", absl::StrCat(kSecond, " admin\n"));
  EXPECT_TRUE(absl::StrContains(reloader_->Reload().message(), "restart"));
  EXPECT_TRUE(CanCall(kFirst));
}

TEST_F(ReloaderTest, AChangeByACallerIsKeptIfTheSettingIsTheSame) {
  ExchangeLogLevel(LogLevel::kWarning);  // as SetLogLevel does
  EXPECT_EQ(reloader_->Reload(), absl::OkStatus());
  EXPECT_EQ(CurrentLogLevel(), LogLevel::kWarning);
}

TEST_F(ReloaderTest, TokensThatEveryUserMayWriteAreRefused) {
  ASSERT_EQ(chmod(flags_.tokens_file.c_str(), 0666), 0);
  const absl::Status status = reloader_->Reload();
  EXPECT_TRUE(absl::StartsWith(status.message(), "--tokens-file ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "chmod o-w")) << status;
}

}  // namespace
}  // namespace hotlora
