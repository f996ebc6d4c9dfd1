#include "engine/quant/packed_linear.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/quant/rtn.h"
#include "tests/testing/status_matchers.h"
#include "tests/unit/engine/quant/memory_checkpoint.h"
#include "tests/unit/engine/quant/numbers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using testing::IsError;

MemoryCheckpoint Packed(const LinearSpec& spec, const LinearCodes& codes, int64_t out, int64_t in) {
  std::vector<TensorToWrite> tensors;
  AppendLinearTensors("L", spec, codes, out, in, &tensors);
  return MemoryCheckpoint(std::move(tensors));
}

TEST(PackedLinearTest, HandPackedCodesDecodeToTheirValues) {
  const LinearSpec spec = {
      .code_type = CodeType::kUniform, .bit_width = 4, .symmetric = false, .group_size = 2};
  MemoryCheckpoint checkpoint;
  checkpoint.Add({.name = "L.qweight", .dtype = DType::kU8, .shape = {1, 2}, .bytes = "\x21\x43"});
  checkpoint.AddFloats("L.scale", {1, 2}, {0.5f, 2});
  checkpoint.Add({.name = "L.zero", .dtype = DType::kU8, .shape = {1, 2}, .bytes = "\x01\x04"});
  ASSERT_OK_AND_ASSIGN(const auto weight, DecodeLinearWeight(checkpoint, "L", spec, 1, 4));
  EXPECT_THAT(weight, ElementsAre(0, 0.5f, -2, 0));
}

TEST(PackedLinearTest, SymmetricCodesAreTwosComplement) {
  const LinearSpec spec = {.code_type = CodeType::kUniform, .bit_width = 4};
  MemoryCheckpoint checkpoint;
  checkpoint.Add({.name = "L.qweight", .dtype = DType::kU8, .shape = {1, 2}, .bytes = "\x78\x0f"});
  checkpoint.AddFloats("L.scale", {1, 1}, {0.5f});
  ASSERT_OK_AND_ASSIGN(const auto weight, DecodeLinearWeight(checkpoint, "L", spec, 1, 3));
  EXPECT_THAT(weight, ElementsAre(-4, 3.5f, -0.5f));
}

TEST(PackedLinearTest, CodeColumnsGoToTheInputsThatThePermutationNames) {
  const LinearSpec spec = {
      .code_type = CodeType::kUniform, .bit_width = 8, .group_size = 2, .with_permutation = true};
  const LinearCodes codes = {.codes = {1, 2, 3, 4}, .scales = {1, 10}, .permutation = {2, 0, 3, 1}};
  ASSERT_OK_AND_ASSIGN(const auto weight,
                       DecodeLinearWeight(Packed(spec, codes, 1, 4), "L", spec, 1, 4));
  EXPECT_THAT(weight, ElementsAre(2, 40, 1, 30));
}

TEST(PackedLinearTest, ExponentsScaleBlocksOfThirtyTwo) {
  const LinearSpec spec = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  LinearCodes codes = {.codes = std::vector<uint8_t>(64, 0x2), .exponents = {127, 130}};
  codes.codes[63] = 0xf;
  ASSERT_OK_AND_ASSIGN(const auto weight,
                       DecodeLinearWeight(Packed(spec, codes, 1, 64), "L", spec, 1, 64));
  EXPECT_EQ(weight[0], 1);
  EXPECT_EQ(weight[32], 8);
  EXPECT_EQ(weight[63], -48);
}

TEST(PackedLinearTest, GroupsEndWithTheRowOrTheShard) {
  LinearSpec spec = {.code_type = CodeType::kUniform, .bit_width = 4, .group_size = 128};
  EXPECT_EQ(NumGroups(spec, 300), 3);
  EXPECT_EQ(NumGroups(spec, 100), 1);
  EXPECT_EQ(GroupWidth(spec, 100), 100);
  spec.group_size = -1;
  EXPECT_EQ(NumGroups(spec, 300), 1);
  spec.num_shards = 4;
  EXPECT_EQ(NumGroups(spec, 8960), 4);
  EXPECT_EQ(GroupWidth(spec, 8960), 2240);
}

// The weight of a linear rounded group by group must be what RoundToOwnGrid makes of the group.
TEST(PackedLinearTest, EveryWidthAndGroupingDecodesToItsGrid) {
  constexpr int64_t kOut = 5;
  constexpr int64_t kIn = 72;
  const std::vector<float> weight = RandomValues(kOut * kIn, 5);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {false, true}) {
      for (const int group_size : {-1, 1, 16, 50, 72, 128}) {
        for (const int num_shards : {1, 3}) {
          const LinearSpec spec = {.code_type = CodeType::kUniform,
                                   .bit_width = bits,
                                   .symmetric = symmetric,
                                   .group_size = group_size,
                                   .num_shards = num_shards};
          const MemoryCheckpoint checkpoint =
              Packed(spec, RoundWeight(weight, spec, kOut, kIn), kOut, kIn);
          ASSERT_OK_AND_ASSIGN(const auto decoded,
                               DecodeLinearWeight(checkpoint, "L", spec, kOut, kIn));
          std::vector<float> expected = weight;
          const int64_t width = group_size > 0 ? group_size : kIn / num_shards;
          for (int64_t row = 0; row < kOut; ++row) {
            for (int64_t at = 0; at < kIn; at += width) {
              const auto size = static_cast<size_t>(std::min(width, kIn - at));
              RoundToOwnGrid(std::span(expected).subspan(static_cast<size_t>(row * kIn + at), size),
                             {.bit_width = bits, .symmetric = symmetric, .min_range = 1e-5f});
            }
          }
          ASSERT_EQ(decoded, expected) << bits << symmetric << group_size << num_shards;
        }
      }
    }
  }
}

TEST(PackedLinearTest, ALinearThatIsNotQuantizedKeepsItsWeight) {
  MemoryCheckpoint checkpoint;
  checkpoint.AddFloats("L.weight", {2, 2}, {1, 2, 3, 4});
  ASSERT_OK_AND_ASSIGN(const auto weight, DecodeLinearWeight(checkpoint, "L", {}, 2, 2));
  EXPECT_THAT(weight, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(DecodeLinearWeight(checkpoint, "L", {}, 2, 3),
              IsError(absl::StatusCode::kInvalidArgument, "tensor L.weight"));
}

class HostileLinearTest : public ::testing::Test {
 protected:
  HostileLinearTest()
      : spec_{.code_type = CodeType::kUniform,
              .bit_width = 4,
              .symmetric = false,
              .group_size = 16,
              .with_permutation = true} {
    LinearCodes codes = RoundWeight(RandomValues(3 * 32, 1), spec_, 3, 32);
    for (int32_t i = 0; i < 32; ++i) codes.permutation.push_back(i);
    checkpoint_ = Packed(spec_, codes, 3, 32);
  }
  void ExpectRefused(absl::StatusCode code, const char* message) {
    EXPECT_THAT(DecodeLinearWeight(checkpoint_, "L", spec_, 3, 32), IsError(code, message));
  }

  LinearSpec spec_;
  MemoryCheckpoint checkpoint_;
};

TEST_F(HostileLinearTest, AMissingTensorIsNamed) {
  ASSERT_OK(DecodeLinearWeight(checkpoint_, "L", spec_, 3, 32));
  for (const char* name : {"L.perm", "L.zero", "L.scale", "L.qweight"}) {
    checkpoint_.Remove(name);
    ExpectRefused(absl::StatusCode::kNotFound, name);
  }
}

TEST_F(HostileLinearTest, AnotherShapeOrTypeIsNamed) {
  checkpoint_.AddFloats("L.scale", {3, 1}, {1, 1, 1});
  ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor L.scale: F32 [3, 1]");
  checkpoint_.AddFloats("L.qweight", {3, 16}, std::vector<float>(48));
  ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor L.qweight: F32 [3, 16], expected U8");
}

TEST_F(HostileLinearTest, AZeroPointAboveTheLargestCodeIsRefused) {
  checkpoint_.Add({.name = "L.zero",
                   .dtype = DType::kU8,
                   .shape = {3, 2},
                   .bytes = std::string("\x01\x0f\x02\x10\x03\x04", 6)});
  ExpectRefused(absl::StatusCode::kInvalidArgument,
                "tensor L.zero: zero point 3 is 16, above the largest 4-bit code 15");
}

TEST_F(HostileLinearTest, ScalesMustBeFiniteAndPositive) {
  for (const float bad : {0.0f, -1.0f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    checkpoint_.AddFloats("L.scale", {3, 2}, {1, 1, 1, 1, bad, 1});
    ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor L.scale: scale 4");
  }
}

TEST_F(HostileLinearTest, APermutationMustBeOne) {
  for (const int32_t bad : {-1, 32, 0}) {
    std::vector<int32_t> permutation(32);
    for (int32_t i = 0; i < 32; ++i) permutation[static_cast<size_t>(i)] = i;
    permutation[7] = bad;
    checkpoint_.Add(
        {.name = "L.perm", .dtype = DType::kI32, .shape = {32}, .bytes = BytesOf(permutation)});
    ExpectRefused(absl::StatusCode::kInvalidArgument, "tensor L.perm");
  }
}

TEST(PackedLinearTest, MxfpScalesAndSizesAreChecked) {
  const LinearSpec spec = {.code_type = CodeType::kMxfp4, .bit_width = 4};
  const LinearCodes codes = {.codes = std::vector<uint8_t>(32), .exponents = {255}};
  EXPECT_THAT(DecodeLinearWeight(Packed(spec, codes, 1, 32), "L", spec, 1, 32),
              IsError(absl::StatusCode::kInvalidArgument, "tensor L.scale"));
  EXPECT_THAT(DecodeLinearWeight(MemoryCheckpoint(), "L", spec, 1, 33),
              IsError(absl::StatusCode::kInvalidArgument, "block of 32"));
}

}  // namespace
}  // namespace assay::engine
