#include "coordinator/planner/plan_sweep.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using assay::testing::SourcePath;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// A world of models a, b, c and of benchmarks with six items, levels 1 and 2.
class PlanSweepTest : public ::testing::Test {
 protected:
  PlanSweepTest() {
    context_.model_hash = [this](const std::string& name) -> absl::StatusOr<std::string> {
      ++num_model_lookups_;
      if (!hashes_.contains(name)) return NotFound("model '{}': no folder of that name", name);
      return hashes_[name];
    };
    context_.benchmark_items =
        [this](const BenchmarkSpec&) -> absl::StatusOr<std::vector<BenchmarkItem>> {
      ++num_benchmark_reads_;
      return items_;
    };
    context_.calibration_set = [](const std::string& name) {
      return ParseCalibrationJsonl("{\"text\":\"" + name + "\"}", name);
    };
    for (int i = 0; i < 6; ++i) {
      BenchmarkItem item;
      item.name = "item-" + std::to_string(i);
      item.question = "q" + std::to_string(i);
      item.answer = "1";
      item.level = i < 4 ? "1" : "2";
      items_.push_back(item);
    }
  }

  absl::StatusOr<PlannedSweep> Plan(const std::string& yaml) {
    ASSAY_ASSIGN_OR_RETURN(const SweepSpec spec, ParseSweepSpec(yaml, "s.yaml"));
    return PlanSweep(spec, context_);
  }

  // "a gsm8k rtn 4-16-16" and so on.
  static std::vector<std::string> Describe(const PlannedSweep& plan) {
    std::vector<std::string> cells;
    for (const PlannedCell& cell : plan.cells) {
      cells.push_back(plan.models[static_cast<size_t>(cell.model_index)].name + " " +
                      plan.benchmarks[static_cast<size_t>(cell.benchmark_index)].benchmark.name +
                      " " + cell.cell.method.label + " " + cell.cell.method.bits);
    }
    return cells;
  }

  std::map<std::string, std::string> hashes_ = {{"a", "ha"}, {"b", "hb"}, {"c", "hc"}};
  std::vector<BenchmarkItem> items_;
  int num_model_lookups_ = 0;
  int num_benchmark_reads_ = 0;
  PlannerContext context_;
};

TEST_F(PlanSweepTest, PutsTheBaselineFirstWithinEachModelAndBenchmark) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan,
                       Plan("name: s\nmodels: [a, b]\nbenchmarks: [gsm8k, math500]\n"
                            "methods: [{method: rtn, bits: [4-16-16, 3-16-16], models: [a]}]\n"));
  EXPECT_THAT(Describe(plan), ElementsAre("a gsm8k bf16 16-16-16", "a gsm8k rtn 4-16-16",
                                          "a gsm8k rtn 3-16-16", "a math500 bf16 16-16-16",
                                          "a math500 rtn 4-16-16", "a math500 rtn 3-16-16",
                                          "b gsm8k bf16 16-16-16", "b math500 bf16 16-16-16"));
  EXPECT_EQ(plan.cells[0].baseline_index, -1);
  EXPECT_EQ(plan.cells[1].baseline_index, 0);
  EXPECT_EQ(plan.cells[5].baseline_index, 3);
  EXPECT_EQ(plan.cells[1].artifact_index, plan.cells[4].artifact_index);
  EXPECT_EQ(plan.cells[0].artifact_index, -1);
  EXPECT_EQ(plan.artifacts.size(), 2u);
  EXPECT_EQ(plan.calibration_jsonl.size(), 2u);
}

TEST_F(PlanSweepTest, AsksTheWorldOnceForEachThing) {
  ASSERT_OK(
      Plan("name: s\nmodels: [a, {name: b, benchmarks: [{name: gsm8k, limit: 2}]}]\n"
           "benchmarks: [gsm8k]\n"
           "methods: [{method: rtn, bits: [4-16-16, 3-16-16, 2-16-16]}]\n"));
  EXPECT_EQ(num_model_lookups_, 2);
  EXPECT_EQ(num_benchmark_reads_, 1);
}

TEST_F(PlanSweepTest, BaselineCanBeTurnedOffOrAskedForByName) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep without,
                       Plan("name: s\nbaseline: false\nmodels: [a]\nbenchmarks: [gsm8k]\n"
                            "methods: [{method: quarot, bits: 16-16-4}]\n"));
  EXPECT_THAT(Describe(without), ElementsAre("a gsm8k quarot 16-16-4"));
  EXPECT_EQ(without.cells[0].baseline_index, -1);

  ASSERT_OK_AND_ASSIGN(
      const PlannedSweep by_name,
      Plan("name: s\nbaseline: false\nmodels: [a, b]\nbenchmarks: [gsm8k]\n"
           "methods: [{method: quarot, bits: 16-16-4}, {method: bf16, models: b}]\n"));
  EXPECT_THAT(Describe(by_name), ElementsAre("a gsm8k quarot 16-16-4", "b gsm8k bf16 16-16-16",
                                             "b gsm8k quarot 16-16-4"));
  EXPECT_EQ(by_name.cells[2].baseline_index, 1);

  ASSERT_OK_AND_ASSIGN(
      const PlannedSweep both,
      Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nmethods: [{method: bf16}]\n"));
  EXPECT_THAT(Describe(both), ElementsAre("a gsm8k bf16 16-16-16"));
}

TEST_F(PlanSweepTest, LeavesOutWhatIsExcluded) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan,
                       Plan("name: s\nmodels: [a, b]\nbenchmarks: [gsm8k]\n"
                            "methods: [{method: rtn, bits: [4-16-16, 3-16-16]}]\n"
                            "exclude: [{model: a, bits: 3-16-16}, {model: b, method: bf16}]\n"));
  EXPECT_THAT(Describe(plan), ElementsAre("a gsm8k bf16 16-16-16", "a gsm8k rtn 4-16-16",
                                          "b gsm8k rtn 4-16-16", "b gsm8k rtn 3-16-16"));
  EXPECT_EQ(plan.cells[2].baseline_index, -1);
  EXPECT_THAT(Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nexclude: [{model: a}]\n"),
              IsError(kInvalid, "s.yaml: no cells: every combination is excluded"));
}

TEST_F(PlanSweepTest, SubsetsAreBenchmarkVersionsOfTheirOwn) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan,
                       Plan("name: s\nmodels:\n"
                            "- a\n"
                            "- {name: b, benchmarks: [{name: gsm8k, per_level: 2}]}\n"
                            "- {name: c, benchmarks: [{name: gsm8k, limit: 100}]}\n"
                            "benchmarks: [gsm8k]\nrepeats: 3\n"));
  ASSERT_EQ(plan.benchmarks.size(), 2u);
  EXPECT_EQ(plan.cells[0].num_items, 6);
  EXPECT_EQ(plan.cells[1].num_items, 4);
  EXPECT_EQ(plan.cells[2].benchmark_index, plan.cells[0].benchmark_index);
  EXPECT_EQ(plan.cells[0].num_repeats, 3);
  const std::vector<storage::ItemRecord>& items = plan.benchmarks[1].items;
  ASSERT_EQ(items.size(), 4u);
  EXPECT_EQ(items[2].name, "item-4");
  EXPECT_EQ(items[2].item_index, 2);
  EXPECT_EQ(items[2].user_text,
            "q4\n\nPlease reason step by step, and put your final answer within \\boxed{}.");
}

TEST_F(PlanSweepTest, ExpectsMeasuredTokensWhereThereAreSome) {
  const std::string yaml =
      "name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nrepeats: 2\nsampling: {max_tokens: 50}\n";
  ASSERT_OK_AND_ASSIGN(const PlannedSweep guessed, Plan(yaml));
  EXPECT_EQ(guessed.cells[0].expected_tokens, 6 * 2 * 50);
  context_.mean_item_tokens = [](const std::string& model_hash, const std::string&) {
    EXPECT_EQ(model_hash, "ha");
    return std::vector<double>{10, 0, 30};
  };
  ASSERT_OK_AND_ASSIGN(const PlannedSweep measured, Plan(yaml));
  EXPECT_EQ(measured.cells[0].expected_tokens, 6 * 2 * 20);
}

class KeyTest : public PlanSweepTest {
 protected:
  // Keys of the only method cell and its artifact.
  std::pair<std::string, std::string> Keys(const std::string& method,
                                           const std::string& more = "") {
    absl::StatusOr<PlannedSweep> plan =
        Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nmethods: [" + method + "]\n" + more);
    EXPECT_OK(plan);
    if (!plan.ok()) return {};
    return {plan->cells.back().cell.key, plan->artifacts.back().key};
  }
  const std::string rtn_ = "{method: rtn, bits: 4-16-16}";
  const std::string kvquant_ = "{method: kvquant_star, bits: 16-16-4, calibration: x}";
};

TEST_F(KeyTest, WhatChangesNothingKeepsTheKeys) {
  const auto keys = Keys(rtn_);
  EXPECT_EQ(keys.first.size(), 64u);
  EXPECT_EQ(Keys("{method: rtn, bits: 4-16-16, group_size: 128, symmetric: false}"), keys);
  EXPECT_EQ(Keys(rtn_, "repeats: 5\npriority: 9\nowner: me\n"), keys);
  EXPECT_EQ(Keys(rtn_, "sampling: {temperature: 0.60, seed: 42}\n"), keys);
}

TEST_F(KeyTest, EveryParameterOfTheMethodIsInBothKeys) {
  const auto keys = Keys(rtn_);
  std::set<std::string> cell_keys = {keys.first};
  std::set<std::string> artifact_keys = {keys.second};
  for (const std::string& other :
       {std::string("{method: rtn, bits: 3-16-16}"),
        std::string("{method: rtn, bits: 4-16-16, group_size: 64}"),
        std::string("{method: rtn, bits: 4-16-16, symmetric: true}"),
        std::string("{method: rtn, bits: 4-16-16, virtual_shards: 4}"),
        std::string("{method: quarot, bits: 16-16-4}"), kvquant_,
        std::string("{method: kvquant_star, bits: 16-16-4, calibration: x, pre_bias: true}"),
        std::string("{method: kvquant_star, bits: 16-16-4, calibration: y}")}) {
    const auto changed = Keys(other);
    EXPECT_TRUE(cell_keys.insert(changed.first).second) << other;
    EXPECT_TRUE(artifact_keys.insert(changed.second).second) << other;
  }
}

TEST_F(KeyTest, SamplingIsInTheCellKeyOnly) {
  const auto keys = Keys(rtn_);
  std::set<std::string> cell_keys = {keys.first};
  for (const std::string sampling :
       {"temperature: 0.61", "top_p: 0.9", "top_k: 30", "max_tokens: 512", "max_model_len: 4096",
        "seed: 43", "budget_forcing: {num_extensions: 1}"}) {
    const auto changed = Keys(rtn_, "sampling: {" + sampling + "}\n");
    EXPECT_EQ(changed.second, keys.second) << sampling;
    EXPECT_TRUE(cell_keys.insert(changed.first).second) << sampling;
  }
  items_[0].answer = "2";
  const auto changed = Keys(rtn_);
  EXPECT_EQ(changed.second, keys.second);
  EXPECT_TRUE(cell_keys.insert(changed.first).second);
}

TEST_F(KeyTest, ModelContentAndVersionsAreInTheKeys) {
  const auto keys = Keys(rtn_);
  context_.cpu_numerics_version = "another-engine";
  EXPECT_EQ(Keys(rtn_).second, keys.second);
  EXPECT_NE(Keys(rtn_).first, keys.first);
  context_.cpu_numerics_version = kCpuNumericsVersion;
  context_.quantizer_version = "quant-2";
  EXPECT_NE(Keys(rtn_).second, keys.second);
  EXPECT_NE(Keys(rtn_).first, keys.first);
  context_.quantizer_version = "quant-1";
  EXPECT_EQ(Keys(rtn_), keys);
  hashes_["a"] = "changed";
  EXPECT_NE(Keys(rtn_).second, keys.second);
}

// Two devices compute with different arithmetic, a quantizer with one.
TEST_F(KeyTest, EachDeviceHasCellsOfItsOwnAndTheyShareArtifacts) {
  const auto cpu = Keys(rtn_);
  const auto cuda = Keys(rtn_, "device: cuda\n");
  EXPECT_NE(cpu.first, cuda.first);
  EXPECT_EQ(cpu.second, cuda.second);
  context_.cuda_numerics_version = "cuda-next";
  EXPECT_EQ(Keys(rtn_), cpu);
  EXPECT_NE(Keys(rtn_, "device: cuda\n").first, cuda.first);
}

TEST_F(KeyTest, ACellSaysWhoseArithmeticItIs) {
  const std::string sweep = "name: s\nmodels: [a]\nbenchmarks: [gsm8k]\n";
  ASSERT_OK_AND_ASSIGN(const PlannedSweep cpu, Plan(sweep));
  EXPECT_EQ(cpu.cells[0].cell.engine_numerics_version, kCpuNumericsVersion);
  ASSERT_OK_AND_ASSIGN(const PlannedSweep cuda, Plan(sweep + "device: cuda\n"));
  EXPECT_EQ(cuda.cells[0].cell.engine_numerics_version, kCudaNumericsVersion);
}

TEST_F(KeyTest, ModelsAreKnownByContentNotByName) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep by_name,
                       Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\n"));
  ASSERT_OK_AND_ASSIGN(const PlannedSweep by_path,
                       Plan("name: s\nmodels: [{name: x, path: a}]\nbenchmarks: [gsm8k]\n"));
  EXPECT_EQ(by_path.cells[0].cell.key, by_name.cells[0].cell.key);
  EXPECT_EQ(by_path.models[0].name, "x");
  EXPECT_EQ(by_path.models[0].place(), "a");
  EXPECT_EQ(by_name.models[0].place(), "a");
}

TEST_F(PlanSweepTest, TellsOfEverythingThatCannotBeFoundWithPositions) {
  const absl::Status status =
      Plan("name: s\nmodels:\n- a\n- x\n- y\nbenchmarks: [gsm8k]\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Message(status),
            "s.yaml:4:3: model 'x': no folder of that name\n"
            "s.yaml:5:3: model 'y': no folder of that name");
}

TEST_F(PlanSweepTest, RefusesAGangThatTheModelDoesNotDivideOver) {
  context_.model_dimensions = [](const std::string&) -> absl::StatusOr<ModelDimensions> {
    return ModelDimensions{.hidden_size = 3584,
                           .intermediate_size = 18944,
                           .num_layers = 2,
                           .num_heads = 28,
                           .num_kv_heads = 4};
  };
  const auto plan = [&](int gpus) {
    return Plan("name: s\ndevice: cuda\nmodels: [{name: a, tensor_parallel_size: " +
                std::to_string(gpus) + "}]\nbenchmarks: [gsm8k]\n")
        .status();
  };
  EXPECT_OK(plan(4));
  EXPECT_EQ(Message(plan(8)),
            "s.yaml:3:10: model 'a': 28 attention heads, 4 KV heads and an intermediate size of "
            "18944 do not divide over tensor_parallel_size 8");
  EXPECT_OK(plan(2));
  EXPECT_EQ(plan(7).code(), kInvalid) << "7 divides the heads, but not the KV heads";
}

TEST_F(PlanSweepTest, RefusesTwoNamesForOneModel) {
  hashes_["b"] = hashes_["a"];
  EXPECT_THAT(Plan("name: s\nmodels:\n- a\n- b\nbenchmarks: [gsm8k]\n"),
              IsError(kInvalid, "s.yaml:4:3: model 'b' has the same content as that of line 3"));
}

TEST_F(PlanSweepTest, RefusesPerLevelWithoutLevels) {
  for (BenchmarkItem& item : items_) item.level.clear();
  EXPECT_THAT(Plan("name: s\nmodels: [a]\nbenchmarks: [{name: gsm8k, per_level: 5}]\n"),
              IsError(kInvalid, "s.yaml:3:14: benchmark 'gsm8k': its items have no level"));
}

TEST_F(PlanSweepTest, RefusesItemsThatAreNotThePinnedVersion) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan,
                       Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\n"));
  const std::string version = plan.benchmarks[0].benchmark.version_hash.substr(0, 10);
  const std::string pinned =
      "name: s\nmodels: [a]\nbenchmarks: [{name: gsm8k, version: \"" + version + "\"}]\n";
  EXPECT_OK(Plan(pinned));
  items_[2].question += "?";
  EXPECT_THAT(Plan(pinned), IsError(kInvalid, "and the spec pins " + version));
}

TEST_F(PlanSweepTest, WarnsOfWhatIsProbablyAMistake) {
  ASSERT_OK_AND_ASSIGN(
      const PlannedSweep plan,
      Plan("name: s\nmodels:\n- {name: a, benchmarks: [math500]}\n- b\nbenchmarks: [gsm8k]\n"
           "methods:\n- {method: rtn, bits: 4-16-16, models: [a], benchmarks: [gsm8k]}\n"
           "repeats: 2\nsampling: {temperature: 0}\n"));
  EXPECT_THAT(plan.warnings, ElementsAre(HasSubstr("s.yaml:7:3: rtn 4-16-16 makes no cell"),
                                         HasSubstr("temperature 0 gives every repeat the same")));
  ASSERT_OK_AND_ASSIGN(const PlannedSweep clean,
                       Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\n"));
  EXPECT_THAT(clean.warnings, IsEmpty());
}

TEST_F(PlanSweepTest, SaysWhatCellsAndCalibrationNeedOfASlot) {
  const std::string yaml =
      "name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nmethods:\n"
      "- {method: rtn, bits: 4-16-16}\n"
      "- {method: kvquant_star, bits: 16-16-4, calibration: traces}\n";
  context_.model_dimensions = [](const std::string&) -> absl::StatusOr<ModelDimensions> {
    return ParseModelDimensions(R"({"hidden_size": 128, "intermediate_size": 384, "head_dim": 128,
        "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
        "vocab_size": 512, "max_position_embeddings": 4096})",
                                "config.json");
  };
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan, Plan(yaml));
  ASSERT_EQ(plan.cells.size(), 3u);
  for (const PlannedCell& cell : plan.cells) EXPECT_GT(cell.cell.memory_need_bytes, 1'000'000);
  EXPECT_LT(plan.cells[1].cell.memory_need_bytes, plan.cells[0].cell.memory_need_bytes);
  EXPECT_LT(plan.cells[2].cell.memory_need_bytes, plan.cells[0].cell.memory_need_bytes);
  EXPECT_EQ(plan.artifacts[0].memory_need_bytes, 0) << "rtn runs no model";
  EXPECT_GT(plan.artifacts[1].memory_need_bytes, 1'000'000);
  EXPECT_THAT(plan.warnings, IsEmpty());

  const std::string key = plan.cells[0].cell.key;
  context_.model_dimensions = [](const std::string&) -> absl::StatusOr<ModelDimensions> {
    return InvalidArgument("a/config.json: hidden_size must be a number");
  };
  ASSERT_OK_AND_ASSIGN(const PlannedSweep unknown, Plan(yaml));
  EXPECT_EQ(unknown.cells[0].cell.memory_need_bytes, 0);
  EXPECT_THAT(
      unknown.warnings,
      ElementsAre(HasSubstr("s.yaml:2:10: what model 'a' needs of a slot is not known: a/")));
  EXPECT_EQ(unknown.cells[0].cell.key, key) << "an estimate is no part of what a cell is";
}

TEST_F(PlanSweepTest, RefusesPlansBeyondItsLimits) {
  std::string yaml = "name: s\nbenchmarks: [gsm8k, math500]\nmodels: [";
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "m" + std::to_string(i);
    hashes_[name] = name;
    yaml += (i > 0 ? ", " : "") + name;
  }
  yaml += "]\nmethods: [{method: rtn, bits: 4-16-16}";
  for (int i = 1; i < 999; ++i) {
    yaml +=
        ", {method: rtn, bits: 4-16-16, group_size: " + std::to_string(i == 128 ? 999 : i) + "}";
  }
  yaml += "]\n";
  EXPECT_THAT(Plan(yaml), IsError(kInvalid, "combinations of model, method and benchmark"));
}

TEST_F(PlanSweepTest, CarriesCalibrationTextsOfThoseWhoNeedThem) {
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan,
                       Plan("name: s\nmodels: [a]\nbenchmarks: [gsm8k]\nmethods:\n"
                            "- {method: rtn, bits: 4-16-16}\n"
                            "- {method: kvquant_star, bits: 16-16-4, calibration: traces}\n"));
  EXPECT_THAT(plan.calibration_jsonl, ElementsAre("", "{\"text\":\"traces\"}\n"));
  EXPECT_EQ(plan.artifacts[0].calibration_hash, "");
  EXPECT_EQ(plan.artifacts[1].calibration_hash.size(), 64u);
}

TEST(FileContextTest, PlansTheDemo) {
  ASSERT_OK_AND_ASSIGN(const std::string yaml, ReadFile(SourcePath("examples/demo.yaml")));
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec, ParseSweepSpec(yaml, "demo.yaml"));
  ModelHasher hasher;
  const PlannerContext context = FileContext({{SourcePath("examples/models")},
                                              {SourcePath("examples/benchmarks")},
                                              {SourcePath("examples/calibration")}},
                                             &hasher);
  ASSERT_OK_AND_ASSIGN(const PlannedSweep plan, PlanSweep(spec, context));
  EXPECT_EQ(plan.cells.size(), 12u);
  EXPECT_EQ(plan.artifacts.size(), 10u);
  int64_t num_units = 0;
  for (const PlannedCell& cell : plan.cells)
    num_units += int64_t{cell.num_items} * cell.num_repeats;
  EXPECT_EQ(num_units, 8 * 500 + 4 * 250);
  EXPECT_THAT(plan.warnings, IsEmpty());
  EXPECT_EQ(plan.benchmarks[0].items[0].user_text, plan.benchmarks[0].items[0].question);
}

TEST(FileContextTest, SuggestsTheNearestModel) {
  ASSERT_OK_AND_ASSIGN(
      const SweepSpec spec,
      ParseSweepSpec("name: s\nmodels: [tiny-qwen2-2m]\nbenchmarks: [arith500]\n", "s.yaml"));
  ModelHasher hasher;
  const PlannerContext context = FileContext(
      {{SourcePath("examples/models")}, {SourcePath("examples/benchmarks")}, {}}, &hasher);
  EXPECT_THAT(PlanSweep(spec, context),
              IsError(absl::StatusCode::kNotFound, "(did you mean 'tiny-qwen2-1m'?)"));
}

}  // namespace
}  // namespace assay::coordinator
