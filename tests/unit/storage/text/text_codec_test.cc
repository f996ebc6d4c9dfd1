#include "storage/text/text_codec.h"

#include "tests/testing/status_matchers.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
using ::testing::IsEmpty;

TEST(TextCodecTest, TextsComeBackAndGetSmaller) {
  std::string chain;
  for (int i = 0; i < 1000; ++i) chain += "Wait, let me check that again: 7 * 8 = 56.\n";
  for (const std::string& text : {chain, std::string(), std::string("a\0b", 3)}) {
    ASSERT_OK_AND_ASSIGN(const std::string back, DecompressText(CompressText(text)));
    EXPECT_EQ(back, text);
  }
  EXPECT_LT(CompressText(chain).size(), chain.size() / 50);
}

TEST(TextCodecTest, TokenIdsComeBackAsLittleEndianNumbers) {
  const std::vector<int32_t> ids = {0, 1, 151643, 0x01020304};
  const std::string packed = CompressTokenIds(ids);
  ASSERT_OK_AND_ASSIGN(const auto back, DecompressTokenIds(packed));
  EXPECT_EQ(back, ids);
  ASSERT_OK_AND_ASSIGN(const std::string bytes, DecompressText(packed));
  EXPECT_EQ(bytes.substr(12), "\x04\x03\x02\x01");
  ASSERT_OK_AND_ASSIGN(const auto none, DecompressTokenIds(CompressTokenIds({})));
  EXPECT_THAT(none, IsEmpty());
}

TEST(TextCodecTest, TheSizeIsToldWithoutUnpacking) {
  ASSERT_OK_AND_ASSIGN(const int64_t size, UnpackedBytes(CompressText("some text")));
  EXPECT_EQ(size, 9);
  ASSERT_OK_AND_ASSIGN(const int64_t none, UnpackedBytes(CompressText("")));
  EXPECT_EQ(none, 0);
  EXPECT_THAT(UnpackedBytes("plain words"),
              IsError(StatusCode::kInvalidArgument, "not a zstd frame"));
  EXPECT_THAT(UnpackedBytes(CompressText("some text"), 8),
              IsError(StatusCode::kInvalidArgument, "at most 8"));
}

TEST(TextCodecTest, HostileBytesAreRefusedBeforeAnythingIsAllocated) {
  const std::string good = CompressText("some text");
  const auto refused = [](const std::string& packed, const char* piece) {
    EXPECT_THAT(DecompressText(packed), IsError(StatusCode::kInvalidArgument, piece));
  };
  refused("", "not a zstd frame");
  refused("plain words", "not a zstd frame");
  refused(good.substr(0, good.size() - 3), "is cut");
  refused(good + "more", "something follows");
  refused(good + good, "something follows");
  std::string damaged = CompressText(std::string(1000, 'a') + std::string(1000, 'b'));
  damaged[damaged.size() - 2] = static_cast<char>(damaged[damaged.size() - 2] ^ 0x55);
  EXPECT_THAT(DecompressText(damaged), IsError(StatusCode::kInvalidArgument, ""));

  // A bomb: 80 MB of zeros in a few kilobytes.
  refused(CompressText(std::string(80 << 20, '\0')), "at most 67108864");
  EXPECT_THAT(DecompressText(CompressText(std::string(11, 'x')), 10),
              IsError(StatusCode::kInvalidArgument, "at most 10"));
  // A whole frame of "text" that keeps its size to itself, as a streaming compressor writes it.
  const std::string streamed("\x28\xb5\x2f\xfd\x00\x00\x21\x00\x00\x74\x65\x78\x74", 13);
  refused(streamed, "of known size");
  EXPECT_THAT(DecompressTokenIds(CompressText("12345")),
              IsError(StatusCode::kInvalidArgument, "not a multiple of 4"));
}

}  // namespace
}  // namespace assay::storage
