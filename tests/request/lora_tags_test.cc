#include "src/request/lora_tags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hotlora {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

auto Ref(const char* name, double weight, double text_encoder_weight) {
  return testing::AllOf(testing::Field(&AdapterRef::name, name),
                        testing::Field(&AdapterRef::weight, testing::Optional(weight)),
                        testing::Field(&AdapterRef::text_encoder_weight, testing::Optional(text_encoder_weight)));
}

TEST(TakeLoraTagsTest, CutsTagsOutOfTheText) {
  const TaggedPrompt tagged = TakeLoraTags("a <lora:ink:0.5>red<lora:styles/neon> cat");
  EXPECT_EQ(tagged.text, "a red cat");
  EXPECT_THAT(tagged.adapters, ElementsAre(Ref("ink", 0.5, 0.5), Ref("styles/neon", 1, 1)));
  EXPECT_THAT(tagged.faults, IsEmpty());
}

TEST(TakeLoraTagsTest, TheTextEncodersWeightComesFirst) {
  EXPECT_THAT(TakeLoraTags("<lora:a:0.25:0.75>").adapters, ElementsAre(Ref("a", 0.75, 0.25)));
  EXPECT_THAT(TakeLoraTags("<lora:a:te=0.25:unet=-0.75>").adapters, ElementsAre(Ref("a", -0.75, 0.25)));
  EXPECT_THAT(TakeLoraTags("<lora:a:te=0.25>").adapters, ElementsAre(Ref("a", 0.25, 0.25)));
  EXPECT_THAT(TakeLoraTags("<lora:a:0.5:unet=0>").adapters, ElementsAre(Ref("a", 0, 0.5)));
  EXPECT_THAT(TakeLoraTags("<lora:Pony Style (v2), a+b=c@0.8:0.5>").adapters,
              ElementsAre(Ref("Pony Style (v2), a+b=c@0.8", 0.5, 0.5)));
  EXPECT_THAT(TakeLoraTags("<lora: \u6c34\u5f69 :0.5>").adapters, ElementsAre(Ref("\u6c34\u5f69", 0.5, 0.5)));
  EXPECT_THAT(TakeLoraTags("<lora:a:1:1:te=2>").adapters, ElementsAre(Ref("a", 1, 2)));
}

TEST(TakeLoraTagsTest, OtherTextStays) {
  for (const char* text : {"", "a <b> c", "<hypernet:x:1>", "<lora:a", "<lora:>", "< lora:a:1>", "<LORA:a:1>"}) {
    const TaggedPrompt tagged = TakeLoraTags(text);
    EXPECT_EQ(tagged.text, text);
    EXPECT_THAT(tagged.adapters, IsEmpty());
    EXPECT_THAT(tagged.faults, IsEmpty());
  }
}

TEST(TakeLoraTagsTest, NamesTheTagThatIsNotSound) {
  for (const auto& [tag, what] : {std::pair{"<lora:a:x>", "\"x\", which is not a number"},
                                  {"<lora:a:>", "not a number"},
                                  {"<lora::1>", "names no adapter"},
                                  {"<lora:te=1>", "names no adapter"},
                                  {"<lora:a:1:1:8>", "dynamic rank"},
                                  {"<lora:a:dyn=8>", "dynamic rank"},
                                  {"<lora:a:lbw=1,0>", "has \"lbw\"; known are te, unet"}}) {
    const TaggedPrompt tagged = TakeLoraTags(tag);
    EXPECT_EQ(tagged.text, "");
    EXPECT_THAT(tagged.adapters, IsEmpty());
    EXPECT_THAT(tagged.faults, ElementsAre(testing::AllOf(HasSubstr(tag), HasSubstr(what)))) << tag;
  }
}

}  // namespace
}  // namespace hotlora
