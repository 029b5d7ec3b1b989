#include "server/access_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/base/logging.h"

namespace hotlora {
namespace {

std::string ReadAll(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(AccessLogTest, ALineTellsIdsPhasesAdaptersAndTiers) {
  AccessEntry entry;
  entry.time = absl::FromUnixMillis(1764082931482);
  entry.method = "StreamGenerateImages";
  entry.code = "OK";
  entry.request_id = "a1";
  entry.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  entry.peer = "ipv4:127.0.0.1:1";
  entry.seconds = 2.5;
  ImageAccess& image = entry.image.emplace();
  image.steps = 30;
  image.images = 2;
  image.hires = HiresPass{1.5, std::nullopt, 12};
  image.image_bytes = 1000;
  image.adapters_asked = {"neon"};
  image.summary.width = 64;
  image.summary.height = 32;
  image.summary.queue_seconds = 0.5;
  image.summary.denoise_seconds = 1.5;
  image.summary.adapters = {{"neon", std::string(64, 'a'), 0.7, AdapterTier::kHost, 3, {}}};
  image.summary.adapters.push_back(image.summary.adapters[0]);
  image.summary.adapters[1].range = {0.25, 1.0};
  image.summary.adapters[1].blocks = {{"mid_block", 0.5}, {"up_blocks.1", -1.0}};
  image.summary.controls = {{"lines", std::string(64, 'b'), 0.5, AdapterTier::kDevice, 0.0}};
  image.summary.image_prompts = {{"style", std::string(64, 'c'), 0.75, AdapterTier::kDisk, 0.0}};
  const auto line = nlohmann::json::parse(ToJsonLine(entry));
  EXPECT_EQ(line["controls"],
            (nlohmann::json{{{"name", "lines"}, {"sha256_12", "bbbbbbbbbbbb"}, {"scale", 0.5}, {"tier", "device"}}}));
  EXPECT_EQ(line["image_prompts"],
            (nlohmann::json{{{"name", "style"}, {"sha256_12", "cccccccccccc"}, {"scale", 0.75}, {"tier", "disk"}}}));
  EXPECT_EQ(line["time"], "2025-11-25T15:02:11.482Z");
  EXPECT_EQ(line["outcome"], "ok");
  EXPECT_EQ(line["request_id"], "a1");
  EXPECT_EQ(line["traceparent"], entry.traceparent);
  EXPECT_EQ(line["width"], 64);
  EXPECT_EQ(line["images"], 2);
  EXPECT_EQ(line["hires"], (nlohmann::json{{"scale", 1.5}, {"steps", 12}}));
  EXPECT_EQ(line["phases"]["queue"], 0.5);
  EXPECT_EQ(line["phases"]["denoise"], 1.5);
  ASSERT_EQ(line["adapters"].size(), 2u);
  EXPECT_FALSE(line["adapters"][0].contains("start"));
  EXPECT_FALSE(line["adapters"][0].contains("blocks"));
  EXPECT_EQ(line["adapters"][1]["start"], 0.25);
  EXPECT_EQ(line["adapters"][1]["end"], 1.0);
  EXPECT_EQ(line["adapters"][1]["blocks"]["mid_block"], 0.5);
  EXPECT_EQ(line["adapters"][1]["blocks"]["up_blocks.1"], -1.0);
  EXPECT_EQ(line["adapters"][0]["tier"], "host");
  EXPECT_EQ(line["adapters"][0]["sha256_12"], "aaaaaaaaaaaa");
  EXPECT_FALSE(line.contains("reason"));
}

TEST(AccessLogTest, ARequestThatNeverRanNamesWhatItAskedFor) {
  AccessEntry entry;
  entry.code = "NOT_FOUND";
  entry.reason = "ADAPTER_NOT_FOUND";
  entry.image.emplace().adapters_asked = {"no\nbody\"", "\xff"};
  const std::string text = ToJsonLine(entry);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const auto line = nlohmann::json::parse(text);
  EXPECT_EQ(line["outcome"], "error");
  EXPECT_EQ(line["reason"], "ADAPTER_NOT_FOUND");
  EXPECT_EQ(line["adapters"][0]["name"], "no\nbody\"");
  EXPECT_FALSE(line["adapters"][0].contains("tier"));
  EXPECT_FALSE(line.contains("traceparent"));
  EXPECT_FALSE(line.contains("controls"));
}

TEST(AccessLogTest, AppendsEveryLineBeforeItIsGone) {
  const std::string path = testing::TempDir() + "/access.log";
  unlink(path.c_str());
  for (const char* run : {"first", "second"}) {
    auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status();
    for (int i = 0; i < 100; ++i) {
      (*log)->Write(absl::StrCat(run, " ", i));
    }
  }
  const std::string text = ReadAll(path);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 200);
  EXPECT_THAT(text, testing::StartsWith("first 0\nfirst 1\n"));
  EXPECT_THAT(text, testing::EndsWith("second 99\n"));
}

TEST(AccessLogTest, ALineThatAKilledProcessCutSpoilsNoOther) {
  const std::string path = testing::TempDir() + "/cut_access.log";
  for (const char* const before : {"", "whole\n", "whole\ncu"}) {
    std::ofstream(path, std::ios::trunc) << before;
    AccessLog::Open(path).value()->Write("next");
    EXPECT_EQ(ReadAll(path), absl::StrCat(before, absl::EndsWith(before, "cu") ? "\n" : "", "next\n"));
  }
}

TEST(AccessLogTest, AFileThatCannotBeOpenedIsNamed) {
  const auto log = AccessLog::Open("/no/such/folder/access.log");
  EXPECT_EQ(log.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(log.status().message()), testing::HasSubstr("--access-log /no/such/folder/access.log"));
}

TEST(AccessLogTest, APipeThatNobodyReadsDelaysNobodyAndItsLinesAreCounted) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const uint64_t lost = LostLogLineCount();
  constexpr int kLines = 3 * static_cast<int>(LineWriter::kMaxWaiting);
  {
    AccessLog log(ends[1], /*owned=*/true);
    for (int i = 0; i < kLines; ++i) {
      log.Write(std::string(100, 'x'));
    }
    EXPECT_GE(LostLogLineCount() - lost, LineWriter::kMaxWaiting);
  }
  // What fit into the pipe, and nothing else, was written.
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  size_t bytes = 0;
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    bytes += static_cast<size_t>(got);
  }
  close(ends[0]);
  EXPECT_EQ(bytes / 101 + (LostLogLineCount() - lost), static_cast<size_t>(kLines));
}

TEST(AccessLogTest, AReaderWhoLeavesEndsNothing) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  const uint64_t lost = LostLogLineCount();
  { AccessLog(ends[1], /*owned=*/true).Write("line"); }
  EXPECT_EQ(LostLogLineCount() - lost, 1u);
}

}  // namespace
}  // namespace hotlora
