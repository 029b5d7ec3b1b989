#include "client/report.h"

#include <gtest/gtest.h>

namespace hotlora {
namespace {

TEST(ReportTest, GenerationTellsFilesSeedsSecondsAndAdapters) {
  GeneratedImages images;
  images.accepted.set_request_id("r1");
  images.images.resize(2);
  for (uint32_t i = 0; i < 2; ++i) {
    images.images[i].set_index(i);
    images.images[i].set_seed(7 + i);
    images.images[i].set_width(64);
    images.images[i].set_height(32);
    images.images[i].set_data("12345");
  }
  images.summary.set_total_seconds(3.5);
  images.summary.set_dtype("float32");
  auto* adapter = images.summary.add_adapters();
  adapter->set_name("ink");
  adapter->set_weight(0.5);
  adapter->set_tier_found(v1::ADAPTER_TIER_DISK);
  adapter->add_unmatched_keys("odd.key");
  adapter->add_notes("its metadata say otherwise");
  auto* control = images.summary.add_controls();
  control->set_name("edges");
  control->set_scale(0.5);
  control->set_tier_found(v1::ADAPTER_TIER_HOST);
  images.summary.add_image_prompts()->set_name("style");
  const std::string text = GenerationText(images, {"a-0.png", "a-1.png"});
  EXPECT_NE(text.find("control edges  scale 0.5  found on host"), std::string::npos) << text;
  EXPECT_NE(text.find("image prompt style  scale 0"), std::string::npos) << text;
  EXPECT_NE(text.find("a-1.png  64x32  seed 8\n"), std::string::npos) << text;
  EXPECT_NE(text.find("3.50 s: queue 0.00"), std::string::npos) << text;
  EXPECT_NE(text.find("adapter ink  weight 0.5  found on disk"), std::string::npos) << text;
  EXPECT_NE(text.find("not applied: odd.key"), std::string::npos) << text;
  EXPECT_NE(text.find("note: its metadata say otherwise"), std::string::npos) << text;

  const nlohmann::json json = GenerationJson(images, {"a-0.png", "a-1.png"});
  EXPECT_EQ(json["request_id"], "r1");
  EXPECT_EQ(json["images"][1]["file"], "a-1.png");
  EXPECT_EQ(json["images"][1]["seed"], 8);
  EXPECT_EQ(json["summary"]["total_seconds"], 3.5);
  EXPECT_EQ(json["summary"]["adapters"][0]["tier_found"], "ADAPTER_TIER_DISK");
}

TEST(ReportTest, ColdAdaptersHaveNoFigures) {
  v1::Adapter cold;
  cold.set_name("a-rather-long-name");
  cold.set_bytes(3 << 20);
  cold.set_tier(v1::ADAPTER_TIER_DISK);
  v1::Adapter warm = cold;
  warm.set_name("warm");
  warm.set_format("lora");
  warm.set_rank_max(16);
  warm.set_tier(v1::ADAPTER_TIER_HOST);
  warm.set_pinned(true);
  EXPECT_EQ(AdaptersText({cold, warm}),
            "NAME                WHERE     FORMAT    RANK          SIZE\n"
            "a-rather-long-name  disk      -            -       3.0 MiB\n"
            "warm                host      lora        16       3.0 MiB  pinned\n");
  EXPECT_EQ(AdapterText(cold), "name     a-rather-long-name\nwhere    disk\nsize     3.0 MiB\n");
}

}  // namespace
}  // namespace hotlora
