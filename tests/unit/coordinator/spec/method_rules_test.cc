// The coordinator's method rules and the engine's are written twice, because neither may include
// the other; this test is what keeps them one.
#include "coordinator/spec/method_rules.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/quant/quantize.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

// A request that says only what is not a default, in both languages.
struct Parameters {
  int group_size = 0;
  bool symmetric = false;
  bool pre_bias = false;
  int virtual_shards = 1;
};

coordinator::MethodRequest AsRequest(const std::string& method, const std::string& bits,
                                     const Parameters& parameters, bool with_calibration) {
  coordinator::MethodRequest request;
  request.method = method;
  request.bits = bits;
  if (parameters.group_size != 0) request.group_size = parameters.group_size;
  if (parameters.symmetric) request.symmetric = true;
  if (parameters.pre_bias) request.pre_bias = true;
  if (parameters.virtual_shards != 1) request.virtual_shards = parameters.virtual_shards;
  if (with_calibration) request.calibration_set = "texts";
  return request;
}

engine::MethodSpec AsSpec(const std::string& method, const std::string& bits,
                          const Parameters& parameters) {
  engine::MethodSpec spec;
  spec.method = method;
  spec.bits = bits;
  spec.group_size = parameters.group_size;
  spec.symmetric = parameters.symmetric;
  spec.pre_bias = parameters.pre_bias;
  spec.virtual_shards = parameters.virtual_shards;
  return spec;
}

const std::vector<std::string>& Bits() {
  static const std::vector<std::string> kBits = [] {
    std::vector<std::string> bits = {"",        "16-16-16", "8-8-8",     "4-4-4",     "4-16-4",
                                     "4-16",    "16-4-16",  "04-16-16",  "16-16-04",  "4-16-16-",
                                     "4--6-16", "-4-16-16", "4 16 16",   "4-16-16 ",  "+4-16-16",
                                     "x",       "4-16-100", "0x4-16-16", "4-16-16-16"};
    for (int width = 0; width <= 17; ++width) {
      bits.push_back(std::to_string(width) + "-16-16");
      bits.push_back("16-16-" + std::to_string(width));
    }
    return bits;
  }();
  return kBits;
}

TEST(MethodRulesTest, CoordinatorAndEngineAgree) {
  const Parameters parameters[] = {{},
                                   {.group_size = -1},
                                   {.group_size = 64},
                                   {.group_size = -2},
                                   {.group_size = 1 << 21},
                                   {.symmetric = true},
                                   {.pre_bias = true},
                                   {.virtual_shards = 4},
                                   {.virtual_shards = 65},
                                   {.virtual_shards = -1}};
  int num_accepted = 0;
  for (const char* method : {"bf16", "rtn", "kvquant_star", "quarot", "awq", "gptq", "smoothquant",
                             "flatquant", "mxfp4", "RTN", ""}) {
    for (const std::string& bits : Bits()) {
      for (const Parameters& p : parameters) {
        const absl::StatusOr<engine::MethodSpec> engine_says =
            engine::ResolveMethod(AsSpec(method, bits, p));
        const bool calibrated = engine_says.ok() && engine::NeedsCalibration(*engine_says);
        const absl::StatusOr<storage::MethodRecord> coordinator_says =
            coordinator::ResolveMethod(AsRequest(method, bits, p, calibrated));
        SCOPED_TRACE(std::string(method) + " '" + bits + "' g" + std::to_string(p.group_size));
        ASSERT_EQ(coordinator_says.ok(), engine_says.ok())
            << coordinator_says.status() << " / " << engine_says.status();
        if (!engine_says.ok()) continue;
        ++num_accepted;
        EXPECT_EQ(coordinator_says->method, engine_says->method);
        EXPECT_EQ(coordinator_says->bits, engine_says->bits);
        EXPECT_EQ(coordinator_says->group_size, engine_says->group_size);
        EXPECT_EQ(coordinator_says->symmetric, engine_says->symmetric);
        EXPECT_EQ(coordinator_says->pre_bias, engine_says->pre_bias);
        EXPECT_EQ(coordinator_says->virtual_shards, engine_says->virtual_shards);

        // What the coordinator stores is what the worker hands to the engine: it must stand.
        engine::MethodSpec stored;
        stored.method = coordinator_says->method;
        stored.bits = coordinator_says->bits;
        stored.group_size = coordinator_says->group_size;
        stored.symmetric = coordinator_says->symmetric;
        stored.pre_bias = coordinator_says->pre_bias;
        stored.virtual_shards = coordinator_says->virtual_shards;
        EXPECT_OK(engine::ResolveMethod(stored));
      }
    }
  }
  EXPECT_GT(num_accepted, 60);
}

TEST(MethodRulesTest, CalibrationIsAskedOfWhoNeedsItAndRefusedOfOthers) {
  using coordinator::ResolveMethod;
  EXPECT_OK(ResolveMethod(AsRequest("kvquant_star", "16-16-4", {}, true)));
  EXPECT_FALSE(ResolveMethod(AsRequest("kvquant_star", "16-16-4", {}, false)).ok());
  EXPECT_FALSE(ResolveMethod(AsRequest("quarot", "16-16-4", {}, true)).ok());
  EXPECT_FALSE(ResolveMethod(AsRequest("rtn", "4-16-16", {}, true)).ok());
}

TEST(MethodRulesTest, LabelsNameWhatDiffersFromTheDefault) {
  const auto label = [](const std::string& method, const std::string& bits, Parameters p) {
    return coordinator::ResolveMethod(AsRequest(method, bits, p, method == "kvquant_star"))->label;
  };
  EXPECT_EQ(label("bf16", "", {}), "bf16");
  EXPECT_EQ(label("rtn", "4-16-16", {}), "rtn");
  EXPECT_EQ(label("rtn", "4-16-16", {.group_size = -1}), "rtn per-channel");
  EXPECT_EQ(label("rtn", "4-16-16", {.group_size = 64, .symmetric = true, .virtual_shards = 4}),
            "rtn g64 symmetric T4");
  EXPECT_EQ(label("kvquant_star", "16-16-4", {.pre_bias = true}), "kvquant_star pre-bias");
}

TEST(MethodRulesTest, BaselineIsTheResolvedBf16) {
  const storage::MethodRecord resolved =
      *coordinator::ResolveMethod(AsRequest("bf16", "", {}, false));
  const storage::MethodRecord baseline = coordinator::BaselineMethod();
  EXPECT_EQ(baseline.method, resolved.method);
  EXPECT_EQ(baseline.bits, resolved.bits);
  EXPECT_EQ(baseline.label, resolved.label);
}

}  // namespace
}  // namespace assay
