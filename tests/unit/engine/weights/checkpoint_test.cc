#include "engine/weights/checkpoint.h"

#include <cstring>
#include <limits>

#include "base/file.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using testing::IsError;
using testing::kNoShared;
using testing::SharedPath;
using testing::TemporaryDirectory;

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST(CheckpointTest, ReadsBackWhatTheWriterWrote) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteSafetensors(
      folder / "model.safetensors",
      {{.name = "codes", .dtype = DType::kU8, .shape = {3}, .bytes = "abc"},
       {.name = "scale", .dtype = DType::kF32, .shape = {1, 2}, .bytes = Bytes<float>({1, -2.5f})},
       {.name = "empty", .dtype = DType::kF32, .shape = {0, 7}}}));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder.path()));
  EXPECT_THAT(checkpoint->names(), ElementsAre("codes", "empty", "scale"));
  ASSERT_OK_AND_ASSIGN(const TensorView codes, checkpoint->Find("codes"));
  EXPECT_EQ(codes.dtype, DType::kU8);
  EXPECT_EQ(std::memcmp(codes.bytes.data(), "abc", 3), 0);
  const int64_t shape[] = {1, 2};
  ASSERT_OK_AND_ASSIGN(const auto scale, checkpoint->ReadFloats("scale", shape));
  EXPECT_THAT(scale, ElementsAre(1, -2.5f));
}

// Readers refuse holes between tensors, so alignment comes from the order.
TEST(CheckpointTest, TensorsOfLargerElementsComeFirstInTheFile) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteSafetensors(
      folder / "model.safetensors",
      {{.name = "a", .dtype = DType::kU8, .shape = {1}, .bytes = "x"},
       {.name = "b", .dtype = DType::kF32, .shape = {1}, .bytes = Bytes<float>({1})},
       {.name = "c", .dtype = DType::kBF16, .shape = {1}, .bytes = "yy"}}));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder.path()));
  ASSERT_OK_AND_ASSIGN(const TensorView a, checkpoint->Find("a"));
  ASSERT_OK_AND_ASSIGN(const TensorView b, checkpoint->Find("b"));
  ASSERT_OK_AND_ASSIGN(const TensorView c, checkpoint->Find("c"));
  EXPECT_EQ(c.bytes.data() - b.bytes.data(), 4);
  EXPECT_EQ(a.bytes.data() - c.bytes.data(), 2);
}

TEST(CheckpointTest, TheWritersBytesDependOnItsArgumentsAlone) {
  const TemporaryDirectory folder;
  const std::vector<TensorToWrite> tensors = {
      {.name = "a", .dtype = DType::kU8, .shape = {1}, .bytes = "x"},
      {.name = "b", .dtype = DType::kF32, .shape = {1}, .bytes = Bytes<float>({1})}};
  ASSERT_OK(WriteSafetensors(folder / "one", tensors));
  ASSERT_OK(WriteSafetensors(folder / "two", tensors));
  ASSERT_OK_AND_ASSIGN(const std::string one, ReadFile(folder / "one"));
  ASSERT_OK_AND_ASSIGN(const std::string two, ReadFile(folder / "two"));
  EXPECT_EQ(one, two);
}

TEST(CheckpointTest, TheWriterRefusesBytesThatDoNotFitTheShapeAndNamesThatComeTwice) {
  const TemporaryDirectory folder;
  EXPECT_THAT(
      WriteSafetensors(folder / "f",
                       {{.name = "a", .dtype = DType::kF32, .shape = {2}, .bytes = "1234"}}),
      IsError(absl::StatusCode::kInvalidArgument, "tensor a"));
  const TensorToWrite tensor = {.name = "a", .dtype = DType::kU8, .shape = {1}, .bytes = "x"};
  EXPECT_THAT(WriteSafetensors(folder / "f", {tensor, tensor}),
              IsError(absl::StatusCode::kInvalidArgument, "tensor a"));
  EXPECT_THAT(WriteSafetensors(folder / "no/such/folder", {tensor}),
              IsError(absl::StatusCode::kUnavailable, "no/such/folder"));
}

TEST(CheckpointTest, HalvesBecomeTheFloatsThatTheyAre) {
  const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x8000, 0x7bff, 0x7c00};
  const std::vector<uint16_t> bfloat = {0x3f80, 0xc049};
  const auto view = [](DType dtype, const std::vector<uint16_t>& values) {
    return TensorView{.name = "t",
                      .dtype = dtype,
                      .shape = {static_cast<int64_t>(values.size())},
                      .bytes = std::as_bytes(std::span(values))};
  };
  std::vector<float> out(half.size());
  ASSERT_OK(ConvertToFloats(view(DType::kF16, half), out));
  EXPECT_THAT(out,
              ElementsAre(1, -2, 0x1p-24f, -0.0f, 65504, std::numeric_limits<float>::infinity()));
  out.resize(bfloat.size());
  ASSERT_OK(ConvertToFloats(view(DType::kBF16, bfloat), out));
  EXPECT_THAT(out, ElementsAre(1, -3.140625f));
  EXPECT_THAT(ConvertToFloats(view(DType::kI16, bfloat), out),
              IsError(absl::StatusCode::kInvalidArgument, "I16"));
}

TEST(CheckpointTest, ErrorsNameTheTensorAndBothShapes) {
  const TemporaryDirectory folder;
  ASSERT_OK(WriteSafetensors(
      folder / "model.safetensors",
      {{.name = "a", .dtype = DType::kF32, .shape = {2, 1}, .bytes = Bytes<float>({1, 2})}}));
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder.path()));
  const int64_t shape[] = {1, 2};
  EXPECT_THAT(
      checkpoint->ReadFloats("a", shape),
      IsError(absl::StatusCode::kInvalidArgument, "tensor a: shape [2, 1], expected [1, 2]"));
  EXPECT_THAT(checkpoint->FindTyped("a", DType::kU8, shape),
              IsError(absl::StatusCode::kInvalidArgument, "F32 [2, 1], expected U8 [1, 2]"));
  EXPECT_THAT(checkpoint->Find("b"), IsError(absl::StatusCode::kNotFound, "no tensor b"));
  EXPECT_THAT(checkpoint->Find("b"), IsError(absl::StatusCode::kNotFound, folder.path()));
}

TEST(CheckpointTest, AFolderWithoutTensorsSaysWhatWasLookedFor) {
  const TemporaryDirectory folder;
  EXPECT_THAT(Checkpoint::Open(folder.path()),
              IsError(absl::StatusCode::kNotFound, "model.safetensors.index.json"));
}

class ShardedCheckpointTest : public ::testing::Test {
 protected:
  void WriteShard(const std::string& file, const std::string& tensor) {
    ASSERT_OK(WriteSafetensors(
        folder_ / file, {{.name = tensor, .dtype = DType::kU8, .shape = {1}, .bytes = "x"}}));
  }
  void WriteIndex(const std::string& json) {
    ASSERT_OK(WriteFileAtomically(folder_ / "model.safetensors.index.json", json));
  }

  TemporaryDirectory folder_;
};

TEST_F(ShardedCheckpointTest, TensorsOfAllShardsAreFound) {
  WriteShard("one.safetensors", "b");
  WriteShard("two.safetensors", "a");
  WriteIndex(R"({"metadata": {"total_size": 2},
                 "weight_map": {"a": "two.safetensors", "b": "one.safetensors"}})");
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(folder_.path()));
  EXPECT_THAT(checkpoint->names(), ElementsAre("a", "b"));
  EXPECT_TRUE(checkpoint->Contains("a"));
  EXPECT_FALSE(checkpoint->Contains("c"));
}

TEST_F(ShardedCheckpointTest, ATensorInTwoShardsIsRefused) {
  WriteShard("one.safetensors", "a");
  WriteShard("two.safetensors", "a");
  WriteIndex(R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              IsError(absl::StatusCode::kInvalidArgument, "tensor a: also in one.safetensors"));
}

TEST_F(ShardedCheckpointTest, AnIndexEntryThatItsShardLacksIsRefused) {
  WriteShard("one.safetensors", "a");
  WriteIndex(R"({"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}})");
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              IsError(absl::StatusCode::kInvalidArgument, "tensor b: said to be in"));
}

TEST_F(ShardedCheckpointTest, AMissingShardIsNotFound) {
  WriteIndex(R"({"weight_map": {"a": "one.safetensors"}})");
  EXPECT_THAT(Checkpoint::Open(folder_.path()),
              IsError(absl::StatusCode::kNotFound, "one.safetensors"));
}

TEST_F(ShardedCheckpointTest, NamesThatLeaveTheFolderAreRefused) {
  for (const char* name : {"\"../one.safetensors\"", "\"/etc/one.safetensors\"",
                           "\"sub/one.safetensors\"", "\".hidden.safetensors\"", "\"\"",
                           "\"one.bin\"", "\"a\\u0000/../b.safetensors\"", "7", "null"}) {
    WriteIndex(std::string(R"({"weight_map": {"a": )") + name + "}}");
    EXPECT_THAT(Checkpoint::Open(folder_.path()),
                IsError(absl::StatusCode::kInvalidArgument, "plain name"))
        << name;
  }
}

TEST_F(ShardedCheckpointTest, AnIndexThatIsNoneIsRefused) {
  for (const char* json : {"", "[]", "{}", R"({"weight_map": []})", R"({"weight_map": {}})",
                           R"({"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}})"}) {
    WriteIndex(json);
    EXPECT_THAT(Checkpoint::Open(folder_.path()),
                IsError(absl::StatusCode::kInvalidArgument, "index.json"))
        << json;
  }
}

TEST(CheckpointTest, OpensTheTinyModels) {
  const std::string path = SharedPath("models/tiny-qwen2-1m");
  if (path.empty()) GTEST_SKIP() << kNoShared;
  ASSERT_OK_AND_ASSIGN(const auto checkpoint, Checkpoint::Open(path));
  EXPECT_EQ(checkpoint->names().size(), 2u + 1 + 4 * 12);
  const int64_t shape[] = {512, 128};
  ASSERT_OK_AND_ASSIGN(const auto embedding,
                       checkpoint->ReadFloats("model.embed_tokens.weight", shape));
  EXPECT_EQ(embedding.size(), 512u * 128);
}

}  // namespace
}  // namespace assay::engine
