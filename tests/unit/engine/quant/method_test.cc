#include "engine/quant/method.h"

#include "engine/quant/quantize.h"
#include "tests/testing/status_matchers.h"

namespace assay::engine {
namespace {

using ::testing::ElementsAre;
using testing::IsError;

TEST(MethodTest, DefaultsAreFilledIn) {
  ASSERT_OK_AND_ASSIGN(const MethodSpec rtn, ResolveMethod({.method = "rtn", .bits = "04-16-16"}));
  EXPECT_EQ(rtn.bits, "4-16-16");
  EXPECT_EQ(rtn.group_size, 128);
  EXPECT_FALSE(rtn.symmetric);
  ASSERT_OK_AND_ASSIGN(const MethodSpec quarot,
                       ResolveMethod({.method = "quarot", .bits = "16-16-3"}));
  EXPECT_EQ(quarot.parameters.at("k_clip_ratio"), "0.95");
  EXPECT_EQ(quarot.parameters.at("v_clip_ratio"), "0.95");
  ASSERT_OK_AND_ASSIGN(const MethodSpec bf16, ResolveMethod({.method = "bf16"}));
  EXPECT_EQ(bf16.bits, "16-16-16");
}

TEST(MethodTest, ResolvingTwiceChangesNothing) {
  for (const MethodSpec& spec :
       {MethodSpec{.method = "rtn", .bits = "3-16-16", .group_size = -1, .virtual_shards = 0},
        MethodSpec{.method = "kvquant_star", .bits = "16-16-4", .pre_bias = true},
        MethodSpec{
            .method = "quarot", .bits = "16-16-4", .parameters = {{"k_clip_ratio", "0.90"}}}}) {
    ASSERT_OK_AND_ASSIGN(const MethodSpec once, ResolveMethod(spec));
    ASSERT_OK_AND_ASSIGN(const MethodSpec twice, ResolveMethod(once));
    EXPECT_EQ(once.bits, twice.bits);
    EXPECT_EQ(once.group_size, twice.group_size);
    EXPECT_EQ(once.virtual_shards, twice.virtual_shards);
    EXPECT_EQ(once.parameters, twice.parameters);
  }
}

TEST(MethodTest, OnlyKvquantStarNeedsCalibration) {
  EXPECT_TRUE(NeedsCalibration({.method = "kvquant_star"}));
  for (const char* method : {"bf16", "rtn", "quarot"}) {
    EXPECT_FALSE(NeedsCalibration({.method = method}));
  }
  EXPECT_THAT(KnownMethods(), ElementsAre("bf16", "kvquant_star", "quarot", "rtn"));
}

struct BadMethod {
  MethodSpec spec;
  const char* message;
};

TEST(MethodTest, WhatDoesNotExistIsAnsweredWithWhatDoes) {
  const BadMethod kCases[] = {
      {{.method = ""}, "there are bf16, kvquant_star, quarot, rtn"},
      {{.method = "rnt", .bits = "4-16-16"}, "did you mean 'rtn'?"},
      {{.method = "rtn"}, "rtn needs bits; it takes 2-16-16 to 8-16-16"},
      {{.method = "rtn", .bits = "4"}, "write weights-activations-cache"},
      {{.method = "rtn", .bits = "4-16-16-1"}, "write weights"},
      {{.method = "rtn", .bits = "-4-16-16"}, "write weights"},
      {{.method = "rtn", .bits = "4-16-"}, "write weights"},
      {{.method = "rtn", .bits = "4-16-99999999999"}, "write weights"},
      {{.method = "rtn", .bits = "9-16-16"}, "rtn does not take bits 9-16-16"},
      {{.method = "rtn", .bits = "1-16-16"}, "it takes 2-16-16 to 8-16-16"},
      {{.method = "rtn", .bits = "4-16-4"}, "rtn does not take bits 4-16-4"},
      {{.method = "bf16", .bits = "4-16-16"}, "it takes 16-16-16"},
      {{.method = "kvquant_star", .bits = "16-16-16"}, "it takes 16-16-2 to 16-16-8"},
      {{.method = "quarot", .bits = "4-4-4"}, "quarot takes 16-16-2 to 16-16-8"},
      {{.method = "rtn", .bits = "4-16-16", .group_size = -2}, "group_size -2"},
      {{.method = "rtn", .bits = "4-16-16", .group_size = 1 << 21}, "group_size 2097152"},
      {{.method = "rtn", .bits = "4-16-16", .virtual_shards = 65}, "virtual_shards 65"},
      {{.method = "rtn", .bits = "4-16-16", .virtual_shards = -1}, "virtual_shards -1"},
      {{.method = "rtn", .bits = "4-16-16", .pre_bias = true}, "method rtn has no pre_bias"},
      {{.method = "quarot", .bits = "16-16-4", .group_size = 64}, "quarot has no group_size"},
      {{.method = "quarot", .bits = "16-16-4", .symmetric = true}, "quarot has no symmetric"},
      {{.method = "quarot", .bits = "16-16-4", .virtual_shards = 2}, "no virtual_shards"},
      {{.method = "quarot", .bits = "16-16-4", .parameters = {{"k_clip_ratio", "0"}}},
       "k_clip_ratio '0'"},
      {{.method = "quarot", .bits = "16-16-4", .parameters = {{"v_clip_ratio", "1.1"}}},
       "v_clip_ratio '1.1'"},
      {{.method = "quarot", .bits = "16-16-4", .parameters = {{"v_clip_ratio", "x"}}},
       "above 0 and at most 1"},
      {{.method = "rtn", .bits = "4-16-16", .parameters = {{"clip", "0.9"}}}, "rtn has no clip"},
  };
  for (const BadMethod& bad : kCases) {
    EXPECT_THAT(ResolveMethod(bad.spec), IsError(absl::StatusCode::kInvalidArgument, bad.message))
        << bad.spec.method << " " << bad.spec.bits;
  }
}

}  // namespace
}  // namespace assay::engine
