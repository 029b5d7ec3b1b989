#include "server/flags.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using Arguments = std::vector<std::string>;
using Environment = std::map<std::string, std::string>;

// A file of the test's own, gone with it.
class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() : path_(absl::StrCat(::testing::TempDir(), "/flags_test.", getpid(), ".toml")) {}
  ~FlagsTest() override { std::filesystem::remove(path_); }

  std::string ConfigOf(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }

  static std::string Error(const Arguments& arguments, const Environment& environment = {}) {
    const auto flags = ParseFlags(arguments, environment);
    return flags.ok() ? "no error" : std::string(flags.status().message());
  }

  const std::string path_;
};

TEST_F(FlagsTest, DefaultsAreTheContracts) {
  const auto flags = ParseFlags({"--model", "m"}, {});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->model, "m");
  EXPECT_EQ(flags->adapters, "");
  EXPECT_EQ(flags->listen, "127.0.0.1:50051");
  EXPECT_EQ(flags->metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(flags->device, "auto");
  EXPECT_EQ(flags->dtype, "auto");
  EXPECT_EQ(flags->vae_dtype, "float32");
  EXPECT_EQ(flags->apply, "auto");
  EXPECT_EQ(flags->max_batch, 4u);
  EXPECT_EQ(flags->max_queue, 64u);
  EXPECT_EQ(flags->adapter_host_bytes, uint64_t{4} << 30);
  EXPECT_EQ(flags->conditioning_cache_bytes, uint64_t{64} << 20);
  EXPECT_EQ(flags->max_message_bytes, 32u << 20);
  EXPECT_EQ(flags->drain_timeout, 30);
  EXPECT_FALSE(flags->max_request_seconds.has_value());
  EXPECT_FALSE(flags->reflection);
  EXPECT_FALSE(flags->check);
  EXPECT_FALSE(flags->answer.has_value());
}

// The depth of a file must not be the depth of a recursion.
TEST_F(FlagsTest, DeepConfigFilesAreRefused) {
  const auto repeated = [](const std::string& text, int times) {
    std::string result;
    for (int i = 0; i < times; ++i) {
      result += text;
    }
    return result;
  };
  constexpr int kDeep = 200'000, kDeepest = 1'000'000;
  const std::pair<std::string, const char*> cases[] = {
      {"\n" + repeated("a.", kDeep) + "a = 1", "line 2: a key has more than 8 parts"},
      {"[" + repeated("a.", kDeep) + "a]", "line 1: a key has more than 8 parts"},
      {"[[" + repeated("\"a\".", kDeep) + "a]]", "line 1: a key has more than 8 parts"},
      {"a = {" + repeated("'.'.", kDeep) + "a = 1}", "line 1: a key has more than 8 parts"},
      {"a = {b = \"\"\"x\"\"\"\", " + repeated("a.", kDeep) + "a = 1}", "line 1: a key has more than 8 parts"},
      {"a = {b = '''x''''', " + repeated("a.", kDeep) + "a = 1}", "line 1: a key has more than 8 parts"},
      {"a = " + repeated("[", kDeepest) + repeated("]", kDeepest), "has 2000004 bytes; at most 1048576 are allowed"},
      {repeated("a.", kDeepest) + "a = 1", "has 2000005 bytes; at most 1048576 are allowed"},
      {"a = " + repeated("[", kDeep) + repeated("]", kDeep), "line 1: "},
      {"a = " + repeated("{a=", kDeep) + repeated("}", kDeep), "line 1: "},
  };
  for (const auto& [text, says] : cases) {
    const std::string error = Error({"--model=m", "--config", ConfigOf(text)});
    EXPECT_NE(error.find(path_ + " " + says), std::string::npos) << text.substr(0, 10) << ": " << error.substr(0, 200);
  }
  // Dots in strings, comments and numbers are no parts of a key.
  const std::string dots = repeated("a.", 20);
  const std::string sound =
      "model = '" + dots + "' # " + dots + "\nadapters = \"\\\"" + dots + "\"\nmax_batch = 2 # 1.2\n";
  const auto flags = ParseFlags({"--config", ConfigOf(sound)}, {});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->model, dots);
  EXPECT_EQ(flags->adapters, "\"" + dots);
}

// toml++ has undefined behaviour for characters such as U+00E9 and U+047D where white space may be.
TEST_F(FlagsTest, CharactersOutsideAsciiStandInCommentsAndStringsOfOneLine) {
  const std::pair<std::string, const char*> refused[] = {
      {"max_batch = 2 \u00e9", "line 1: a character outside ASCII"},
      {"\n[\u047d]", "line 2: a character outside ASCII"},
      {"mod\u00e8le = 'm'", "line 1: a character outside ASCII"},
      {"model = \"\"\"\n\\\n\u00e9\"\"\"", "line 3: a character outside ASCII"},
      {"model = \"\"\"\\\u00e9\"\"\"", "line 1: "},
      {"x = 1978-05m27Tm\xd1\xbd&", "line 1: a character outside ASCII"},
      {"\xff", "line 1: a character outside ASCII"},
      {"model = '\xff'", "line 1: the text is not UTF-8"},
      {"\n# \xff", "line 2: the text is not UTF-8"},
      {"model = '\xed\xa0\x80'", "line 1: the text is not UTF-8"},  // half of a surrogate pair
      {"model = '\xc0\xaf'", "line 1: the text is not UTF-8"},      // a slash in two bytes
      {"model = \"\\\u00e9\"", "line 1: a backslash stands before a character outside ASCII"},
      {"max_batch = 3221c.d\"\u00e9\"", "line 1: "},  // the parser looks for the end of the wrong value
      {"# \u00e9\r\nmodel = '\u00e9'\r\nmax_batch = x", "line 3: "},
      {"'\u00e9' = 1", "line 1: \"\u00e9\" is not a setting"},
      {"\"\u00e9\" = 1", "line 1: \"\u00e9\" is not a setting"},
      {"model = '\u00e9", "line 1: "},
      {"model = \"\u00e9\n", "line 1: "},
      {"model = \"\u00e9\\", "line 1: "},
      {"# \u00e9\rmodel = 'm'", "line 1: "},
      {"# \u00e9 \x01", "line 1: "},
      {std::string("model = '\u00e9\0'", 13), "line 1: "},
  };
  for (const auto& [text, says] : refused) {
    const std::string error = Error({"--model=m", "--config", ConfigOf(text)});
    EXPECT_NE(error.find(path_ + " " + says), std::string::npos) << text << ": " << error;
  }
  const auto flags = ParseFlags({"--config", ConfigOf("\ufeff# \u047d '\r\nmodel = 'mod\u00e8le\t' # \u00e9")}, {});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->model, "mod\u00e8le\t");
  const auto strings = ParseFlags(
      {"--config",
       ConfigOf("model = \"\\\\\u00e9\\\"\\u00e8\"\nadapters = '\\\"\u00e9\\' # '\nembeddings = '\U0001F3A8'")},
      {});
  ASSERT_TRUE(strings.ok()) << strings.status();
  EXPECT_EQ(strings->model, "\\\u00e9\"\u00e8");
  EXPECT_EQ(strings->adapters, "\\\"\u00e9\\");
  EXPECT_EQ(strings->embeddings, "\U0001F3A8");
}

TEST_F(FlagsTest, EverySourceSetsEveryFlag) {
  const Arguments arguments = {"--model=m",
                               "--adapters=a",
                               "--adapters-follow-links",
                               "--embeddings=e",
                               "--embeddings-follow-links",
                               "--apply=merged",
                               "--listen=[::1]:0",
                               "--metrics-listen=0.0.0.0:1",
                               "--device=cuda:1",
                               "--dtype=bfloat16",
                               "--vae-dtype=float16",
                               "--max-batch=8",
                               "--max-queue=9",
                               "--client-share=3",
                               "--adapter-host-bytes=512MiB",
                               "--pin=x",
                               "--pin=y/z",
                               "--base-adapter=speed/lcm:0.5",
                               "--allow-unmatched-keys",
                               "--dora-weighting=interpolated",
                               "--max-request-seconds=1.5",
                               "--max-message-bytes=1MiB",
                               "--tls-cert=c",
                               "--tls-key=k",
                               "--tls-client-ca=ca",
                               "--tokens-file=t",
                               "--trusted-proxy=2001:db8::/32",
                               "--insecure",
                               "--reflection",
                               "--ready-file=r",
                               "--check",
                               "--drain-timeout=5",
                               "--log-level=debug",
                               "--access-log=-",
                               "--fault-file=f"};
  Environment environment = {{"PATH", "/bin"}};
  std::string config;
  for (const std::string& argument : arguments) {
    std::string name = argument.substr(2, argument.find('=') - 2);
    const std::string value =
        argument.find('=') == std::string::npos ? "true" : argument.substr(argument.find('=') + 1);
    std::replace(name.begin(), name.end(), '-', '_');
    std::string variable = "HOTLORA_" + name;
    std::transform(variable.begin(), variable.end(), variable.begin(), ::toupper);
    const bool number = name == "max_batch" || name == "max_queue" || name == "client_share" ||
                        name == "max_request_seconds" || value == "true";
    if (name == "pin") {
      environment[variable] = "x,y/z";
      config += value == "x" ? "pin = ['x', 'y/z']\n" : "";
    } else {
      environment[variable] = value;
      config += absl::StrCat(name, " = ", number ? "" : "'", value, number ? "" : "'", "\n");
    }
  }
  const auto check = [](const absl::StatusOr<Flags>& flags) {
    ASSERT_TRUE(flags.ok()) << flags.status();
    EXPECT_EQ(flags->adapters, "a");
    EXPECT_TRUE(flags->adapters_follow_links);
    EXPECT_EQ(flags->embeddings, "e");
    EXPECT_TRUE(flags->embeddings_follow_links);
    EXPECT_EQ(flags->apply, "merged");
    EXPECT_EQ(flags->listen, "[::1]:0");
    EXPECT_EQ(flags->metrics_listen, "0.0.0.0:1");
    EXPECT_EQ(flags->device, "cuda:1");
    EXPECT_EQ(flags->dtype, "bfloat16");
    EXPECT_EQ(flags->vae_dtype, "float16");
    EXPECT_EQ(flags->max_batch, 8u);
    EXPECT_EQ(flags->max_queue, 9u);
    EXPECT_EQ(flags->client_share, 3u);
    EXPECT_EQ(flags->adapter_host_bytes, uint64_t{512} << 20);
    EXPECT_EQ(flags->pin, (std::vector<std::string>{"x", "y/z"}));
    ASSERT_EQ(flags->base_adapters.size(), 1u);
    EXPECT_EQ(flags->base_adapters[0].name, "speed/lcm");
    EXPECT_EQ(flags->base_adapters[0].weight, 0.5);
    EXPECT_TRUE(flags->allow_unmatched_keys);
    EXPECT_EQ(flags->dora_weighting, "interpolated");
    EXPECT_EQ(flags->max_request_seconds, 1.5);
    EXPECT_EQ(flags->max_message_bytes, 1u << 20);
    EXPECT_EQ(flags->tls.cert + flags->tls.key + flags->tls.client_ca, "ckca");
    EXPECT_EQ(flags->tokens_file, "t");
    EXPECT_EQ(flags->trusted_proxies, std::vector<std::string>{"2001:db8::/32"});
    EXPECT_TRUE(flags->insecure);
    EXPECT_TRUE(flags->reflection);
    EXPECT_EQ(flags->ready_file, "r");
    EXPECT_TRUE(flags->check);
    EXPECT_EQ(flags->drain_timeout, 5);
    EXPECT_EQ(flags->log_level, "debug");
    EXPECT_EQ(flags->access_log, "-");
    EXPECT_EQ(flags->fault_file, "f");
  };
  check(ParseFlags(arguments, {}));
  check(ParseFlags({}, environment));
  check(ParseFlags({"--config", ConfigOf(config)}, {}));
}

TEST_F(FlagsTest, FlagWinsOverVariableOverFile) {
  const std::string config = ConfigOf("model = 'file'\nmax_batch = 2\nmax_queue = 2\npin = ['file']\nadapters = 'a'\n");
  const Environment environment = {
      {"HOTLORA_CONFIG", config}, {"HOTLORA_MAX_BATCH", "3"}, {"HOTLORA_MAX_QUEUE", "3"}, {"HOTLORA_PIN", "v"}};
  const auto flags = ParseFlags({"--max-queue", "4", "--pin", "flag"}, environment);
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->model, "file");
  EXPECT_EQ(flags->max_batch, 3u);
  EXPECT_EQ(flags->max_queue, 4u);
  EXPECT_EQ(flags->pin, std::vector<std::string>{"flag"});
  EXPECT_FALSE(ParseFlags({"--config", "/nowhere.toml"}, environment).ok());
}

TEST_F(FlagsTest, ListsInVariablesArePercentEncodedAndOthersAreNot) {
  const Environment environment = {{"HOTLORA_MODEL", "m"},
                                   {"HOTLORA_ADAPTERS", "a"},
                                   {"HOTLORA_PIN", "te%2Cst1,a+b,Pony Style (v2),50%25,%E6%B0%B4"},
                                   {"HOTLORA_BASE_ADAPTER", "fast%2C8 steps:0.5"}};
  auto flags = ParseFlags({}, environment);
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->pin, (std::vector<std::string>{"te,st1", "a+b", "Pony Style (v2)", "50%", "\u6c34"}));
  EXPECT_EQ(flags->base_adapters.at(0).name, "fast,8 steps");
  const auto bad = ParseFlags({"--model=m", "--adapters=a"}, {{"HOTLORA_PIN", "50% grey"}});
  EXPECT_NE(bad.status().message().find("HOTLORA_PIN has \"%\""), std::string::npos) << bad.status();
  flags = ParseFlags({"--model=m", "--adapters=a", "--pin=te,st1", "--pin=50% %2C"}, {});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->pin, (std::vector<std::string>{"te,st1", "50% %2C"}));
  flags = ParseFlags({"--config", ConfigOf("model = 'm'\nadapters = 'a'\npin = ['te,st1', '%2C']\n")}, {});
  ASSERT_TRUE(flags.ok()) << flags.status();
  EXPECT_EQ(flags->pin, (std::vector<std::string>{"te,st1", "%2C"}));
}

TEST_F(FlagsTest, UploadsAreServedWhereNotEverybodyCanSendThem) {
  const std::pair<std::vector<std::string>, bool> cases[] = {
      {{}, true},
      {{"--listen=127.0.0.1:0"}, true},
      {{"--listen=127.8.9.1:1"}, true},
      {{"--listen=localhost:1"}, true},
      {{"--listen=[::1]:1"}, true},
      {{"--listen=0.0.0.0:1", "--insecure"}, true},
      {{"--listen=0.0.0.0:1", "--insecure", "--uploads=off"}, false},
      {{"--listen=0.0.0.0:1", "--tokens-file=t"}, true},
      {{"--listen=0.0.0.0:1", "--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"}, true},
      {{"--uploads=off"}, false},
      {{"--tokens-file=t", "--uploads=off"}, false},
  };
  for (const auto& [arguments, served] : cases) {
    std::vector<std::string> all = {"--model=m"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const auto flags = ParseFlags(all, {});
    ASSERT_TRUE(flags.ok()) << flags.status();
    EXPECT_EQ(ServesUploads(*flags), served) << all.back();
  }
  EXPECT_NE(Error({"--model=m", "--uploads=maybe"}).find("allowed are on, off"), std::string::npos);
}

TEST_F(FlagsTest, AListenerThatOthersReachNeedsCallersWhoShowWhoTheyAre) {
  const std::pair<std::vector<std::string>, bool> cases[] = {
      {{"--listen=127.0.0.1:0"}, true},
      {{"--listen=127.255.0.1:0"}, true},
      {{"--listen=localhost:0"}, true},
      {{"--listen=[::1]:0"}, true},
      {{"--listen=0.0.0.0:0"}, false},
      {{"--listen=[::]:0"}, false},
      {{"--listen=10.0.0.1:0"}, false},
      {{"--listen=[::ffff:127.0.0.1]:0"}, false},
      {{"--listen=127.example.org:0"}, false},
      {{"--listen=localhost.example.org:0"}, false},
      {{"--listen=0.0.0.0:0", "--uploads=off"}, false},
      {{"--listen=0.0.0.0:0", "--check"}, false},
      {{"--listen=0.0.0.0:0", "--tls-cert=c", "--tls-key=k"}, false},
      {{"--listen=0.0.0.0:0", "--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"}, true},
      {{"--listen=0.0.0.0:0", "--tokens-file=t"}, true},
      {{"--listen=0.0.0.0:0", "--insecure"}, true},
      {{"--metrics-listen=0.0.0.0:0"}, true},
  };
  for (const auto& [arguments, good] : cases) {
    std::vector<std::string> all = {"--model=m"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const absl::Status status = ParseFlags(all, {}).status();
    EXPECT_EQ(status.ok(), good) << arguments.front() << " " << all.back() << " " << status;
    for (const char* way : {"--tokens-file", "--tls-client-ca", "--insecure"}) {
      EXPECT_EQ(status.message().find(way) != std::string::npos, !good) << status;
    }
  }
}

TEST_F(FlagsTest, SizesTakeUnits) {
  struct Case {
    const char* text;
    uint64_t bytes;
  };
  for (const Case& c : {Case{"0", 0}, Case{"4096", 4096}, Case{"7B", 7}, Case{"3KiB", 3072},
                        Case{"4GiB", uint64_t{4} << 30}, Case{"2 TiB", uint64_t{2} << 40}}) {
    const auto flags = ParseFlags({"--model=m", std::string("--adapter-host-bytes=") + c.text}, {});
    ASSERT_TRUE(flags.ok()) << flags.status();
    EXPECT_EQ(flags->adapter_host_bytes, c.bytes) << c.text;
  }
}

TEST_F(FlagsTest, BadValuesNameTheFlag) {
  struct Case {
    const char* flag;
    const char* value;
  };
  const Case cases[] = {
      {"--max-batch", "0"},
      {"--max-batch", "-1"},
      {"--max-batch", "four"},
      {"--max-batch", "4.5"},
      {"--max-queue", "0"},
      {"--client-share", "-1"},
      {"--trusted-proxy", ""},
      {"--trusted-proxy", "proxy.example"},
      {"--trusted-proxy", "10.0.0.0/33"},
      {"--adapter-host-bytes", "4GB"},
      {"--conditioning-cache-bytes", "64MB"},
      {"--adapter-host-bytes", "-1"},
      {"--adapter-host-bytes", "99999999999TiB"},
      {"--adapter-host-bytes", "GiB"},
      {"--max-message-bytes", "1"},
      {"--max-message-bytes", "2GiB"},
      {"--listen", "50051"},
      {"--listen", "host:70000"},
      {"--listen", ":50051"},
      {"--listen", "::1:50051"},
      {"--metrics-listen", "x:y"},
      {"--device", "gpu"},
      {"--device", "cuda:x"},
      {"--device", "cuda:-1"},
      {"--dtype", "half"},
      {"--vae-dtype", "auto"},
      {"--apply", "both"},
      {"--dora-weighting", "both"},
      {"--max-request-seconds", "-1"},
      {"--max-request-seconds", "nan"},
      {"--drain-timeout", "soon"},
      {"--log-level", "loud"},
      {"--tokens-file", ""},
  };
  for (const Case& c : cases) {
    const std::string error = Error({"--model=m", std::string(c.flag) + "=" + c.value});
    EXPECT_EQ(error.rfind(c.flag, 0), 0u) << c.flag << " " << c.value << ": " << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  }
}

TEST_F(FlagsTest, UnknownNamesAreErrorsThatNameThem) {
  EXPECT_NE(Error({"--model=m", "--sampler=x"}).find("--sampler"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "stray"}).find("stray"), std::string::npos);
  EXPECT_NE(Error({"--model=m"}, {{"HOTLORA_MAXBATCH", "4"}}).find("HOTLORA_MAXBATCH"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--config", ConfigOf("maxbatch = 4")}).find("maxbatch"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--config", ConfigOf("[server]\nmax_batch = 4")}).find("server"), std::string::npos);
}

TEST_F(FlagsTest, VariablesThatAreNotSettingsAreLeftAlone) {
  EXPECT_EQ(Error({"--model=m"}, {{"HOTLORA_CACHE", "x"},
                                  {"HOTLORA_TEST_ANYTHING", "x"},
                                  {"HOTLORA_SERVER", "client:1"},
                                  {"HOTLORA_SERVICE_HOST", "10.0.0.1"},
                                  {"HOTLORA_PORT_50051_TCP_PORT", "50051"},
                                  {"OTHER_MAX_BATCH", "x"}}),
            "no error");
}

TEST_F(FlagsTest, ConfigFileMistakesNameTheFile) {
  for (const char* text : {"max_batch = ", "max_batch = [1]", "listen = 2024-01-01", "max_batch = 'x'"}) {
    EXPECT_NE(Error({"--model=m", "--config", ConfigOf(text)}).find(path_), std::string::npos) << text;
  }
}

TEST_F(FlagsTest, WhatGoesTogetherIsChecked) {
  EXPECT_NE(Error({}).find("--model"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--tls-cert=c"}).find("--tls-key"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--tls-client-ca=c"}).find("--tls-cert"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--pin=x"}).find("--adapters"), std::string::npos);
  EXPECT_NE(Error({"--model=m", "--base-adapter=x:1"}).find("--adapters"), std::string::npos);
  for (const char* const value : {"x", "x:", ":1", "x:heavy", "x:11", "x:nan"}) {
    EXPECT_NE(Error({"--model=m", "--adapters=a", absl::StrCat("--base-adapter=", value)}).find("NAME:WEIGHT"),
              std::string::npos)
        << value;
  }
  EXPECT_NE(Error({"--model=m", "--max-batch=1", "--max-batch=2"}).find("more than once"), std::string::npos);
}

TEST_F(FlagsTest, HelpAndVersionNeedNothingElse) {
  const auto help = ParseFlags({"--help"}, {});
  ASSERT_TRUE(help.ok());
  ASSERT_TRUE(help->answer.has_value());
  for (const char* name : {"--model", "--adapter-host-bytes", "--drain-timeout", "--config", "--version"}) {
    EXPECT_NE(help->answer->find(name), std::string::npos) << name;
  }
  const auto version = ParseFlags({"--version"}, {});
  ASSERT_TRUE(version.ok());
  EXPECT_EQ(version->answer, std::string("hotlora-server ") + HOTLORA_VERSION + "\n");
}

TEST_F(FlagsTest, PathsThatAreNotThereAreNamed) {
  Flags flags;
  flags.model = "/nowhere/model";
  EXPECT_EQ(CheckPaths(flags).message(), "--model /nowhere/model: no such file or folder");
  flags.model = ConfigOf("");
  EXPECT_TRUE(CheckPaths(flags).ok());
  flags.vae = "/nowhere/vae";
  EXPECT_EQ(CheckPaths(flags).message(), "--vae /nowhere/vae: no such file or folder");
  flags.vae = "";
  flags.model_config = "/nowhere/configs";
  EXPECT_EQ(CheckPaths(flags).message(), "--model-config /nowhere/configs: no such folder");
  flags.model = flags.model_config = ::testing::TempDir();
  EXPECT_NE(CheckPaths(flags).message().find("is for single-file checkpoints"), std::string::npos);
  flags.model_config = "";
  flags.adapters = path_;  // a file
  EXPECT_FALSE(CheckPaths(flags).ok());
  flags.adapters = ::testing::TempDir();
  flags.embeddings = "/nowhere/embeddings";
  EXPECT_EQ(CheckPaths(flags).message(), "--embeddings /nowhere/embeddings: no such folder");
  flags.embeddings = "";
  flags.tokens_file = "/nowhere/tokens";
  EXPECT_FALSE(CheckPaths(flags).ok());
  flags.tokens_file = "";
  flags.ready_file = "/nowhere/ready";
  EXPECT_FALSE(CheckPaths(flags).ok());
}

}  // namespace
}  // namespace hotlora
