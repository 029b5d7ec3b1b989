#include "client/contact_sheet.h"

#include <png.h>
#include <stdlib.h>

#include <filesystem>

#include <gtest/gtest.h>

namespace hotlora {
namespace {

class ContactSheetTest : public testing::Test {
 protected:
  ContactSheetTest() {
    char name[] = "/tmp/hotlora-sheet-XXXXXX";
    folder_ = mkdtemp(name);
  }
  ~ContactSheetTest() override { std::filesystem::remove_all(folder_); }

  std::string Picture(const std::string& name, uint32_t width, uint32_t height, uint8_t grey) {
    const std::vector<uint8_t> pixels(size_t{width} * height * 3, grey);
    png_image image = {};
    image.version = PNG_IMAGE_VERSION;
    image.width = width;
    image.height = height;
    image.format = PNG_FORMAT_RGB;
    const std::string path = folder_ + "/" + name;
    EXPECT_NE(png_image_write_to_file(&image, path.c_str(), 0, pixels.data(), 0, nullptr), 0);
    return path;
  }

  std::string folder_;
};

TEST_F(ContactSheetTest, PutsPicturesRowByRow) {
  const std::string out = folder_ + "/out.png";
  ASSERT_TRUE(WriteContactSheet({Picture("a", 6, 2, 10), Picture("b", 6, 2, 20), Picture("c", 6, 2, 30)}, 2, out).ok());
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_file(&image, out.c_str()), 0);
  image.format = PNG_FORMAT_GRAY;
  ASSERT_EQ(image.width, 4u + 2 * (6 + 4));
  ASSERT_EQ(image.height, 4u + 2 * (2 + 4));
  std::vector<uint8_t> grey(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, grey.data(), 0, nullptr), 0);
  const auto at = [&](uint32_t x, uint32_t y) { return int{grey[y * image.width + x]}; };
  EXPECT_EQ(at(0, 0), 255);
  EXPECT_EQ(at(4, 4), 10);
  EXPECT_EQ(at(9, 5), 10);
  EXPECT_EQ(at(10, 5), 255);
  EXPECT_EQ(at(14, 4), 20);
  EXPECT_EQ(at(4, 10), 30);
  EXPECT_EQ(at(14, 10), 255);  // the last row is short
}

TEST_F(ContactSheetTest, SaysWhichPictureIsWrong) {
  const std::string good = Picture("good", 6, 2, 10), other = Picture("other", 6, 3, 10), out = folder_ + "/out.png";
  EXPECT_NE(WriteContactSheet({good, other}, 2, out).message().find("other: is 6x3, the first picture is 6x2"),
            std::string::npos);
  EXPECT_NE(WriteContactSheet({good, folder_ + "/none"}, 2, out).message().find("/none: "), std::string::npos);
  EXPECT_FALSE(WriteContactSheet({good}, 2, folder_ + "/no/out.png").ok());
  EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace hotlora
