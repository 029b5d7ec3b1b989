#include "client/arguments.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<Arguments> Parse(const std::vector<std::string>& words,
                                const std::map<std::string, std::string>& environment = {}) {
  return ParseArguments(words, [&](const char* name) -> std::optional<std::string> {
    const auto found = environment.find(name);
    return found == environment.end() ? std::nullopt : std::optional<std::string>(found->second);
  });
}

std::string Error(const std::vector<std::string>& words) {
  const auto arguments = Parse(words);
  return arguments.ok() ? "no error" : std::string(arguments.status().message());
}

TEST(ArgumentsTest, TakesNamesAsPeopleCallTheirFiles) {
  const std::string name = "Pony Style (v2), a+b@0.8 = \u6c34 ";
  const auto generate = Parse({"generate", "p", "--out=o.png", "--adapter", name + ":0.5", "--adapter=-dash:1"});
  ASSERT_TRUE(generate.ok()) << generate.status();
  EXPECT_EQ(generate->request.adapters(0).name(), name);
  EXPECT_EQ(generate->request.adapters(0).weight(), 0.5);
  EXPECT_EQ(generate->request.adapters(1).name(), "-dash");
  for (const std::string& odd : {name, std::string("-dash")}) {
    const auto get = Parse({"adapters", "get", "--", odd});
    ASSERT_TRUE(get.ok()) << get.status();
    EXPECT_EQ(get->adapter, odd);
  }
}

TEST(ArgumentsTest, GenerateFillsTheRequest) {
  const auto arguments = Parse({"generate",
                                "a cat",
                                "--negative",
                                "",
                                "--prompt-2",
                                "fur",
                                "--adapter",
                                "ink:0.5",
                                "--adapter",
                                "a/b:1:0",
                                "--out",
                                "cat.webp",
                                "--width",
                                "640",
                                "--height",
                                "512",
                                "--steps",
                                "4",
                                "--guidance",
                                "6.5",
                                "--guidance-rescale",
                                "0.7",
                                "--guidance-start",
                                "0.2",
                                "--guidance-end",
                                "0.9",
                                "--eta",
                                "0.4",
                                "--seed",
                                "18446744073709551615",
                                "--images",
                                "3",
                                "--clip-skip",
                                "1",
                                "--schedule",
                                "trailing",
                                "--sampler",
                                "dpmpp-2m-sde",
                                "--quality",
                                "80",
                                "--request-id",
                                "r1",
                                "--priority",
                                "-2",
                                "--json"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  const v1::GenerateImagesRequest& request = arguments->request;
  EXPECT_EQ(arguments->command, Command::kGenerate);
  EXPECT_TRUE(arguments->json);
  EXPECT_EQ(arguments->out, "cat.webp");
  EXPECT_EQ(request.prompt(), "a cat");
  EXPECT_TRUE(request.has_negative_prompt());
  EXPECT_EQ(request.negative_prompt(), "");
  EXPECT_EQ(request.prompt_2(), "fur");
  ASSERT_EQ(request.adapters_size(), 2);
  EXPECT_EQ(request.adapters(0).name(), "ink");
  EXPECT_EQ(request.adapters(0).weight(), 0.5);
  EXPECT_FALSE(request.adapters(0).has_text_encoder_weight());
  EXPECT_EQ(request.adapters(1).name(), "a/b");
  EXPECT_EQ(request.adapters(1).text_encoder_weight(), 0);
  EXPECT_TRUE(request.adapters(1).has_text_encoder_weight());
  EXPECT_EQ(request.width(), 640u);
  EXPECT_EQ(request.height(), 512u);
  EXPECT_EQ(request.steps(), 4u);
  EXPECT_EQ(request.guidance_scale(), 6.5);
  EXPECT_EQ(request.guidance_rescale(), 0.7);
  EXPECT_EQ(request.guidance_start(), 0.2);
  EXPECT_EQ(request.guidance_end(), 0.9);
  EXPECT_EQ(request.eta(), 0.4);
  EXPECT_EQ(request.seed(), UINT64_MAX);
  EXPECT_EQ(request.num_images(), 3u);
  EXPECT_EQ(request.clip_skip(), 1u);
  EXPECT_EQ(request.schedule(), v1::NOISE_SCHEDULE_TRAILING);
  EXPECT_EQ(request.sampler(), v1::SAMPLER_DPMPP_2M_SDE);
  EXPECT_EQ(request.format(), v1::IMAGE_FORMAT_WEBP);
  EXPECT_EQ(request.quality(), 80u);
  EXPECT_EQ(request.request_id(), "r1");
  EXPECT_EQ(request.priority(), -2);
}

TEST(ArgumentsTest, PromptsMayHaveTheirOwnSyntaxTagsAndEmbeddings) {
  const auto arguments = Parse({"generate", "a", "--out", "a.png", "--weighted", "--long-prompts", "--lora-tags",
                                "--embedding", "styles/ink", "--embedding", "neon=<s0>"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  const v1::GenerateImagesRequest& request = arguments->request;
  EXPECT_EQ(request.prompt_syntax(), v1::PROMPT_SYNTAX_WEIGHTED);
  EXPECT_TRUE(request.long_prompts());
  EXPECT_TRUE(request.lora_tags());
  ASSERT_EQ(request.embeddings_size(), 2);
  EXPECT_EQ(request.embeddings(0).name(), "styles/ink");
  EXPECT_FALSE(request.embeddings(0).has_token());
  EXPECT_EQ(request.embeddings(1).name(), "neon");
  EXPECT_EQ(request.embeddings(1).token(), "<s0>");
}

TEST(ArgumentsTest, WhatIsNotGivenStaysUnset) {
  const auto arguments = Parse({"generate", "a cat", "--out", "cat.png"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  v1::GenerateImagesRequest request;
  request.set_prompt("a cat");
  request.set_format(v1::IMAGE_FORMAT_PNG);
  EXPECT_EQ(arguments->request.SerializeAsString(), request.SerializeAsString());
}

TEST(ArgumentsTest, LogLevelIsAskedForOrSet) {
  const auto asked = Parse({"log-level"});
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(asked->command, Command::kLogLevel);
  EXPECT_EQ(asked->log_level, v1::LOG_LEVEL_UNSPECIFIED);
  EXPECT_EQ(Parse({"log-level", "debug"})->log_level, v1::LOG_LEVEL_DEBUG);
  const absl::Status status = Parse({"log-level", "loud"}).status();
  EXPECT_NE(status.message().find("\"loud\" is not a level; levels are debug, info, warning, error"), std::string::npos)
      << status;
}

TEST(ArgumentsTest, SheetTakesPicturesAndNeedsColumns) {
  const auto arguments = Parse({"sheet", "a.png", "b.png", "c.png", "--columns", "2", "--out", "all.png"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->command, Command::kSheet);
  EXPECT_THAT(arguments->pictures, testing::ElementsAre("a.png", "b.png", "c.png"));
  EXPECT_EQ(arguments->columns, 2u);
  EXPECT_EQ(arguments->out, "all.png");
  EXPECT_FALSE(Parse({"sheet", "a.png", "--out", "all.png"}).ok());
  EXPECT_FALSE(Parse({"sheet", "a.png", "--columns", "0", "--out", "all.png"}).ok());
}

TEST(ArgumentsTest, FormatComesFromTheFilesEnding) {
  struct Case {
    std::vector<std::string> words;
    v1::ImageFormat format;
  };
  const Case cases[] = {{{"--out", "x.png"}, v1::IMAGE_FORMAT_PNG},
                        {{"--out", "x.JPG"}, v1::IMAGE_FORMAT_JPEG},
                        {{"--out", "x.jpeg"}, v1::IMAGE_FORMAT_JPEG},
                        {{"--out", "x.rgb"}, v1::IMAGE_FORMAT_RAW_RGB8},
                        {{"--out", "-"}, v1::IMAGE_FORMAT_PNG},
                        {{"--out", "-", "--format", "webp"}, v1::IMAGE_FORMAT_WEBP},
                        {{"--out", "x.png", "--format", "raw-rgb8"}, v1::IMAGE_FORMAT_RAW_RGB8}};
  for (const Case& c : cases) {
    std::vector<std::string> words = {"generate", "p"};
    words.insert(words.end(), c.words.begin(), c.words.end());
    const auto arguments = Parse(words);
    ASSERT_TRUE(arguments.ok()) << arguments.status();
    EXPECT_EQ(arguments->request.format(), c.format) << c.words[1];
  }
}

TEST(ArgumentsTest, CommandsAndTheirNames) {
  struct Case {
    std::vector<std::string> words;
    Command command;
  };
  const auto inspect = Parse({"adapters", "inspect", "a.safetensors", "--model-config", "model", "--json"});
  ASSERT_TRUE(inspect.ok()) << inspect.status();
  EXPECT_EQ(inspect->command, Command::kInspectAdapter);
  EXPECT_EQ(inspect->file, "a.safetensors");
  EXPECT_EQ(inspect->model_config, "model");
  EXPECT_FALSE(Parse({"adapters", "inspect"}).ok());
  const Case cases[] = {{{"adapters", "list"}, Command::kListAdapters},
                        {{"adapters", "get", "x"}, Command::kGetAdapter},
                        {{"adapters", "load", "x", "--pin"}, Command::kLoadAdapter},
                        {{"adapters", "unload", "x"}, Command::kUnloadAdapter},
                        {{"adapters", "upload", "in/x.safetensors"}, Command::kUploadAdapter},
                        {{"adapters", "upload", "y", "--name", "x", "--replace"}, Command::kUploadAdapter},
                        {{"adapters", "delete", "x"}, Command::kDeleteAdapter},
                        {{"statistics"}, Command::kStatistics},
                        {{"verify"}, Command::kVerify},
                        {{"health"}, Command::kHealth},
                        {{"--json", "info"}, Command::kInfo}};
  for (const Case& c : cases) {
    const auto arguments = Parse(c.words);
    ASSERT_TRUE(arguments.ok()) << arguments.status();
    EXPECT_EQ(arguments->command, c.command);
    EXPECT_EQ(arguments->pin, c.command == Command::kLoadAdapter);
    if (c.words.size() > 2) {
      EXPECT_EQ(arguments->adapter, "x");
    }
  }
}

TEST(ArgumentsTest, ServerComesFromFlagThenEnvironment) {
  EXPECT_EQ(Parse({"info"})->connection.server, "127.0.0.1:50051");
  EXPECT_EQ(Parse({"info"}, {{"HOTLORA_SERVER", "e:1"}})->connection.server, "e:1");
  EXPECT_EQ(Parse({"info"}, {{"HOTLORA_SERVER", ""}})->connection.server, "127.0.0.1:50051");
  EXPECT_EQ(Parse({"info", "--server", "f:1"}, {{"HOTLORA_SERVER", "e:1"}})->connection.server, "f:1");
  EXPECT_EQ(Parse({"--server=f:2", "info"}, {{"HOTLORA_SERVER", "e:1"}})->connection.server, "f:2");
}

TEST(ArgumentsTest, TokenComesFromFlagFileOrEnvironment) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/arguments_test.", getpid());
  std::ofstream(path) << "  from-file\n";
  EXPECT_EQ(Parse({"info", "--token", "t"}, {{"HOTLORA_TOKEN", "e"}})->connection.token, "t");
  EXPECT_EQ(Parse({"info", "--token-file", path}, {{"HOTLORA_TOKEN", "e"}})->connection.token, "from-file");
  EXPECT_EQ(Parse({"info"}, {{"HOTLORA_TOKEN", "e"}})->connection.token, "e");
  EXPECT_FALSE(Parse({"info"}, {{"HOTLORA_TOKEN", "two\nlines"}}).ok());
  EXPECT_FALSE(Parse({"info", "--token", "t", "--token-file", path}).ok());
  EXPECT_FALSE(Parse({"info", "--token-file", "/nowhere"}).ok());
  std::filesystem::remove(path);
}

TEST(ArgumentsTest, TlsFilesTurnTlsOn) {
  EXPECT_FALSE(Parse({"info"})->connection.tls);
  EXPECT_TRUE(Parse({"info", "--tls"})->connection.tls);
  EXPECT_TRUE(Parse({"info", "--tls-ca", "x"})->connection.tls);
  EXPECT_TRUE(Parse({"info", "--tls-server-name", "x"})->connection.tls);
  EXPECT_FALSE(Parse({"info", "--tls-cert", "x"}).ok());
}

TEST(ArgumentsTest, MistakesAreExplained) {
  struct Case {
    std::vector<std::string> words;
    const char* says;
  };
  const Case cases[] = {
      {{}, "no command"},
      {{"generate", "x", "--out", "x.png", "--seed", "-1"}, "--seed"},
      {{"paint"}, "paint"},
      {{"generate", "--out", "x.png"}, "prompt"},
      {{"generate", "p"}, "--out"},
      {{"generate", "p", "--out", "x"}, "--format"},
      {{"generate", "p", "--out", "x.png", "--steps", "many"}, "--steps"},
      {{"generate", "p", "--out", "x.png", "--steps", "-1"}, "--steps"},
      {{"generate", "p", "--out", "x.png", "--sampler", "magic"}, "dpmpp-2m"},
      {{"generate", "p", "--out", "x.png", "--sampler", "unspecified"}, "dpmpp-2m"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a:b"}, "a:b"},
      {{"generate", "p", "--out", "x.png", "--adapter", ":1"}, ":1"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a:1:1:1"}, "a:1:1:1"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-range", "a"}, "NAME=START:END"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-range", "a=0.5"}, "NAME=START:END"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-range", "a=0:half"}, "NAME=START:END"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-range", "b=0:0.5"}, "no --adapter is \"b\""},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-range", "a=0:1", "--adapter-range", "a=0:1"},
       "twice"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-blocks", "a=up_blocks"}, "PREFIX:WEIGHT"},
      {{"generate", "p", "--out", "x.png", "--adapter", "a", "--adapter-blocks", "a=up_blocks:1,"}, "PREFIX:WEIGHT"},
      {{"generate", "p", "--out", "x.png", "--adapter-blocks", "a=up_blocks:1"}, "no --adapter is \"a\""},
      {{"generate", "p", "--out", "-", "--images", "2"}, "--images"},
      {{"generate", "p", "--out", "-", "--json"}, "--json"},
      {{"adapters"}, "no command"},
      {{"adapters", "get"}, "name"},
      {{"info", "--timeout", "-1"}, "--timeout"},
      {{"info", "--loud"}, "--loud"},
  };
  for (const Case& c : cases) {
    const std::string error = Error(c.words);
    EXPECT_NE(error.find(c.says), std::string::npos) << error << " lacks " << c.says;
  }
}

TEST(ArgumentsTest, AdaptersByRangeAndBlock) {
  const auto arguments =
      Parse({"generate", "p", "--out=o.png", "--adapter=a=b:0.5", "--adapter=ink", "--adapter-range=ink=0.25:1",
             "--adapter-blocks=a=b=down_blocks:0.3,mid_block:-1", "--adapter-blocks=a=b=up_blocks.0.attentions.1:1.5"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  const v1::AdapterRef &blocks = arguments->request.adapters(0), &range = arguments->request.adapters(1);
  EXPECT_EQ(blocks.name(), "a=b");
  EXPECT_FALSE(blocks.has_start());
  ASSERT_EQ(blocks.blocks_size(), 3);
  EXPECT_EQ(blocks.blocks(1).prefix(), "mid_block");
  EXPECT_EQ(blocks.blocks(1).weight(), -1);
  EXPECT_EQ(blocks.blocks(2).prefix(), "up_blocks.0.attentions.1");
  EXPECT_EQ(range.start(), 0.25);
  EXPECT_EQ(range.end(), 1);
  EXPECT_EQ(range.blocks_size(), 0);
}

TEST(ArgumentsTest, HelpIsOfTheCommandAskedFor) {
  EXPECT_NE(Parse({"--help"})->answer->find("adapters"), std::string::npos);
  EXPECT_NE(Parse({"generate", "--help"})->answer->find("--guidance-rescale"), std::string::npos);
  EXPECT_EQ(Parse({"--version"})->answer, std::string("hotlora ") + HOTLORA_VERSION + "\n");
}

// A file with these bytes, gone at the end of the test.
class PictureFile {
 public:
  explicit PictureFile(absl::string_view bytes)
      : path_(absl::StrCat(::testing::TempDir(), "/arguments_test.", getpid(), ".png")) {
    std::ofstream(path_, std::ios::binary) << bytes;
  }
  ~PictureFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

TEST(ArgumentsTest, Controls) {
  const PictureFile file("picture");
  const auto arguments =
      Parse({"generate", "p", "--out=o.png", "--control=canny=" + file.path(), "--control=canny=" + file.path(),
             "--control=union=" + file.path(), "--control-scale=canny=0.5", "--control-scale=canny=0.25",
             "--control-range=canny=0.25:0.75", "--control-type=union=3"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  const auto& controls = arguments->request.controls();
  ASSERT_EQ(controls.size(), 3);
  EXPECT_EQ(controls[0].image(), "picture");
  EXPECT_EQ(controls[0].scale(), 0.5);
  EXPECT_EQ(controls[0].start(), 0.25);
  EXPECT_EQ(controls[0].end(), 0.75);
  EXPECT_EQ(controls[1].scale(), 0.25);
  EXPECT_FALSE(controls[1].has_start());
  EXPECT_EQ(controls[2].name(), "union");
  EXPECT_EQ(controls[2].type(), 3u);
  EXPECT_FALSE(controls[2].has_scale());
  const auto error = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"generate", "p", "--out=o.png", "--control=canny=" + file.path()};
    words.insert(words.end(), more.begin(), more.end());
    return Error(words);
  };
  EXPECT_NE(error({"--control=canny"}).find("NAME=FILE"), std::string::npos);
  EXPECT_NE(error({"--control=canny=/nowhere.png"}).find("--control"), std::string::npos);
  EXPECT_NE(error({"--control-scale=canny=much"}).find("NAME=SCALE"), std::string::npos);
  EXPECT_NE(error({"--control-range=canny=0.5"}).find("NAME=START:END"), std::string::npos);
  EXPECT_NE(error({"--control-type=canny=-1"}).find("NAME=TYPE"), std::string::npos);
  EXPECT_NE(error({"--control-type=depth=1"}).find("no --control is \"depth\""), std::string::npos);
  EXPECT_NE(error({"--control-type=canny=1", "--control-type=canny=1"}).find("has its own"), std::string::npos);
}

TEST(ArgumentsTest, ImagePrompts) {
  const PictureFile file("picture");
  const auto arguments =
      Parse({"generate", "p", "--out=o.png", "--image-prompt=style=" + file.path() + "," + file.path(),
             "--image-prompt=subject=" + file.path(), "--image-prompt-scale=style=0.5",
             "--image-prompt-blocks=subject=up_blocks.0:1,mid_block:0.25"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  const auto& prompts = arguments->request.image_prompts();
  ASSERT_EQ(prompts.size(), 2);
  EXPECT_EQ(prompts[0].name(), "style");
  ASSERT_EQ(prompts[0].images_size(), 2);
  EXPECT_EQ(prompts[0].images(1), "picture");
  EXPECT_EQ(prompts[0].scale(), 0.5);
  EXPECT_EQ(prompts[1].images_size(), 1);
  EXPECT_FALSE(prompts[1].has_scale());
  ASSERT_EQ(prompts[1].blocks_size(), 2);
  EXPECT_EQ(prompts[1].blocks(1).prefix(), "mid_block");
  EXPECT_EQ(prompts[1].blocks(1).weight(), 0.25);
  const auto error = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"generate", "p", "--out=o.png", "--image-prompt=style=" + file.path()};
    words.insert(words.end(), more.begin(), more.end());
    return Error(words);
  };
  EXPECT_NE(error({"--image-prompt=style"}).find("NAME=FILE[,FILE...]"), std::string::npos);
  EXPECT_NE(error({"--image-prompt=style=/nowhere.png"}).find("--image-prompt"), std::string::npos);
  EXPECT_NE(error({"--image-prompt-scale=style=much"}).find("NAME=SCALE"), std::string::npos);
  EXPECT_NE(error({"--image-prompt-scale=other=1"}).find("no --image-prompt has that name"), std::string::npos);
  EXPECT_NE(error({"--image-prompt-scale=style=1", "--image-prompt-scale=style=1"}).find("given twice"),
            std::string::npos);
  EXPECT_NE(error({"--image-prompt-blocks=style=mid_block"}).find("NAME=PREFIX:SCALE"), std::string::npos);
}

TEST(ArgumentsTest, PicturesToBeginWithAreRead) {
  const PictureFile file(absl::string_view("\0picture", 8));
  const auto arguments = Parse({"generate", "x", "--out", "x.png", "--init", file.path(), "--mask", file.path(),
                                "--strength", "0.75", "--preview-out", "p.jpg"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->request.init_image(), std::string("\0picture", 8));
  EXPECT_EQ(arguments->request.mask_image(), arguments->request.init_image());
  EXPECT_EQ(arguments->request.strength(), 0.75);
  EXPECT_EQ(arguments->request.preview_every(), 1u);
  EXPECT_EQ(arguments->preview_out, "p.jpg");
  EXPECT_EQ(
      Parse({"generate", "x", "--out", "x.png", "--preview-out", "p", "--preview-every", "4"})->request.preview_every(),
      4u);
  EXPECT_FALSE(Parse({"generate", "x", "--out", "x.png"})->request.has_preview_every());
}

TEST(ArgumentsTest, ASecondPass) {
  const auto arguments = Parse(
      {"generate", "x", "--out", "x.png", "--hires-scale", "1.5", "--hires-strength", "0.25", "--hires-steps", "12"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_EQ(arguments->request.hires().scale(), 1.5);
  EXPECT_EQ(arguments->request.hires().strength(), 0.25);
  EXPECT_EQ(arguments->request.hires().steps(), 12u);
  const auto one_flag = Parse({"generate", "x", "--out", "x.png", "--hires-steps", "12"});
  EXPECT_TRUE(one_flag->request.has_hires());
  EXPECT_FALSE(one_flag->request.hires().has_scale());
  EXPECT_FALSE(Parse({"generate", "x", "--out", "x.png"})->request.has_hires());
}

TEST(ArgumentsTest, PicturesThatCannotBeReadAreNamed) {
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--init", "/nowhere/cat.png"}),
              HasSubstr("--init /nowhere/cat.png: No such file"));
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--mask", "/"}), HasSubstr("--mask /: is a folder"));
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--init", "/dev/null"}), HasSubstr("is empty"));
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--init", "/dev/zero"}), HasSubstr("has more than 33554432"));
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--init", "-", "--mask", "-"}), HasSubstr("cannot both"));
}

TEST(ArgumentsTest, PreviewsNeedAFile) {
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--preview-every", "2"}), HasSubstr("give --preview-out"));
  EXPECT_THAT(Error({"generate", "x", "--out", "x.png", "--preview-out", "-"}), HasSubstr("--preview-out -"));
}

TEST(ArgumentsTest, BenchHasThreeKinds) {
  const auto soak = Parse({"bench", "soak", "--swaps", "500", "--at-once", "2", "--broken", "b*,c*", "--exact-only",
                           "--metrics", "http://localhost:1/metrics", "--server", "here:1"});
  ASSERT_TRUE(soak.ok()) << soak.status();
  EXPECT_EQ(soak->command, Command::kBench);
  EXPECT_EQ(soak->bench.kind, BenchKind::kSoak);
  EXPECT_EQ(soak->bench.swaps, 500u);
  EXPECT_EQ(soak->bench.most_at_once, 2u);
  EXPECT_TRUE(soak->bench.exact_only);
  EXPECT_EQ(soak->bench.broken, (std::vector<std::string>{"b*", "c*"}));
  EXPECT_EQ(soak->connection.server, "here:1");

  const auto swap = Parse({"bench", "swap", "--source", "host", "--weights", "1,-0.5", "--adapters-match", "a,b*"});
  ASSERT_TRUE(swap.ok()) << swap.status();
  EXPECT_EQ(swap->bench.kind, BenchKind::kSwap);
  EXPECT_EQ(swap->bench.source, "host");
  EXPECT_EQ(swap->bench.weights, (std::vector<double>{1.0, -0.5}));
  EXPECT_EQ(swap->bench.match, (std::vector<std::string>{"a", "b*"}));

  const auto step = Parse({"bench", "step", "--blocks", "3"});
  ASSERT_TRUE(step.ok()) << step.status();
  EXPECT_EQ(step->bench.kind, BenchKind::kStep);
  EXPECT_EQ(step->bench.blocks, 3u);

  EXPECT_THAT(Error({"bench"}), HasSubstr("swap, step, soak"));
  EXPECT_THAT(Error({"bench", "swap", "--source", "moon"}), HasSubstr("--source"));
  EXPECT_THAT(Error({"bench", "swap", "--weights", "11"}), HasSubstr("--weights"));
}

}  // namespace
}  // namespace hotlora
