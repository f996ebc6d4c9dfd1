#include "coordinator/spec/sweep_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(SweepSpecTest, ReadsTheDemo) {
  ASSERT_OK_AND_ASSIGN(const std::string yaml,
                       ReadFile(assay::testing::SourcePath("examples/demo.yaml")));
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec, ParseSweepSpec(yaml, "demo.yaml"));

  EXPECT_EQ(spec.name, "demo");
  EXPECT_TRUE(spec.baseline);
  ASSERT_EQ(spec.models.size(), 2u);
  EXPECT_EQ(spec.models[0].name, "tiny-qwen2-1m");
  ASSERT_EQ(spec.models[1].benchmarks.size(), 1u);
  EXPECT_EQ(spec.models[1].benchmarks[0].per_level, 50);
  EXPECT_EQ(spec.models[1].benchmarks[0].prompt, "{question}");
  EXPECT_EQ(spec.models[1].benchmarks[0].grader, "boxed_number");

  std::vector<std::string> methods;
  for (const MethodEntry& entry : spec.methods) {
    methods.push_back(entry.method.label + " " + entry.method.bits);
  }
  EXPECT_THAT(methods, ElementsAre("rtn 4-16-16", "rtn 3-16-16", "rtn 2-16-16",
                                   "kvquant_star pre-bias 16-16-4", "kvquant_star pre-bias 16-16-3",
                                   "kvquant_star 16-16-4", "quarot 16-16-4"));
  EXPECT_THAT(spec.methods[0].models, IsEmpty());
  EXPECT_THAT(spec.methods[6].models, ElementsAre("tiny-qwen2-1m"));
  EXPECT_EQ(spec.methods[3].method.calibration_set, "arith-traces");
  EXPECT_EQ(spec.sampling.max_tokens, 512);
  EXPECT_EQ(spec.sampling.seed, 42);
}

TEST(SweepSpecTest, FillsInDefaults) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec,
                       ParseSweepSpec("name: s\nmodels: [m]\nbenchmarks: [math-500]\n", "s.yaml"));
  EXPECT_EQ(spec.priority, 50);
  EXPECT_EQ(spec.num_repeats("math500"), 1);
  EXPECT_EQ(spec.sampling.temperature, 0.6);
  EXPECT_EQ(spec.sampling.top_p, 0.95);
  EXPECT_EQ(spec.sampling.top_k, 0);
  EXPECT_EQ(spec.sampling.max_tokens, 32768);
  EXPECT_EQ(spec.sampling.max_model_len, 0);
  EXPECT_EQ(spec.sampling.budget_forcing_json, "");
  ASSERT_EQ(spec.benchmarks.size(), 1u);
  EXPECT_EQ(spec.benchmarks[0].name, "math500");
  EXPECT_EQ(spec.benchmarks[0].grader, "boxed_text");
  EXPECT_EQ(
      spec.benchmarks[0].prompt,
      "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{}.");
}

TEST(SweepSpecTest, ReadsRepeatsPerBenchmarkUnderAnySpelling) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec,
                       ParseSweepSpec("name: s\nmodels: [m]\nbenchmarks: [aime120, gsm8k]\n"
                                      "repeats: {default: 2, AIME-120: 8}\n",
                                      "s.yaml"));
  EXPECT_EQ(spec.num_repeats("aime120"), 8);
  EXPECT_EQ(spec.num_repeats("gsm8k"), 2);
}

TEST(SweepSpecTest, KeepsBudgetForcingAsTheJsonOfItsMessage) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec,
                       ParseSweepSpec("name: s\nmodels: [m]\nbenchmarks: [gsm8k]\n"
                                      "sampling: {budget_forcing: {max_thinking_tokens: 1000}}\n",
                                      "s.yaml"));
  EXPECT_EQ(spec.sampling.budget_forcing_json,
            R"({"end_of_thinking":"</think>","extension_text":"Wait",)"
            R"("forced_stop_text":"\n</think>\n\n","max_thinking_tokens":1000,)"
            R"("num_extensions":0})");
}

TEST(SweepSpecTest, ListsMethodsOfOneEntryInTheOrderOfItsBits) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec,
                       ParseSweepSpec("name: s\nmodels: [m]\nbenchmarks: [gsm8k]\n"
                                      "methods: [{method: rtn, bits: [3-16-16, 08-16-16]}]\n",
                                      "s.yaml"));
  ASSERT_EQ(spec.methods.size(), 2u);
  EXPECT_EQ(spec.methods[0].method.bits, "3-16-16");
  EXPECT_EQ(spec.methods[1].method.bits, "8-16-16");
  EXPECT_EQ(spec.methods[1].method.group_size, 128);
}

// Everything that a spec can say, awkward strings among it.
constexpr char kEverything[] = R"(
name: "all: of it # yes"
owner: "true"
priority: 7
baseline: false
device: cuda
models:
  - plain-model
  - name: m2
    path: "/models/with space/and \"quotes\""
    tensor_parallel_size: 2
    benchmarks:
      - {name: AIME-120, limit: 10, version: 0123abcd}
      - name: own
        path: data/own.jsonl
        grader: boxed_text
        prompt: |
          Do this: {question}
          \boxed{}	"really"
benchmarks: [gsm8k, {name: arith500, per_level: 3}]
methods:
  - method: bf16
  - {method: rtn, bits: [4-16-16, 3-16-16], group_size: 64, symmetric: true, virtual_shards: 4}
  - {method: rtn, bits: 4-16-16, group_size: -1, benchmarks: [GSM8K], models: [plain-model]}
  - {method: kvquant_star, bits: 16-16-4, calibration: {set: "123", self_generated: false}}
  - {method: quarot, bits: 16-16-3, models: [m2, plain-model]}
repeats: {default: 3, gsm8k: 1, own: 3}
sampling:
  temperature: 0.1
  top_p: 1
  top_k: 30
  max_tokens: 4096
  max_model_len: 8192
  seed: 9223372036854775807
  budget_forcing: {max_thinking_tokens: 100, num_extensions: 2, extension_text: "", end_of_thinking: "</思考>"}
stop: {rule: fixed}
exclude:
  - {model: m2, method: rtn, bits: 3-16-16}
  - {benchmark: gsm-8k, method: bf16}
)";

TEST(SweepSpecTest, ResolvedSpecIsAFixedPoint) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec, ParseSweepSpec(kEverything, "a.yaml"));
  const std::string resolved = PrintSweepSpec(spec);
  ASSERT_OK_AND_ASSIGN(const SweepSpec again, ParseSweepSpec(resolved, "b.yaml"));
  EXPECT_EQ(PrintSweepSpec(again), resolved);
}

TEST(SweepSpecTest, ResolvedSpecMeansTheSame) {
  ASSERT_OK_AND_ASSIGN(const SweepSpec spec, ParseSweepSpec(kEverything, "a.yaml"));
  ASSERT_OK_AND_ASSIGN(const SweepSpec again, ParseSweepSpec(PrintSweepSpec(spec), "b.yaml"));
  EXPECT_EQ(again.name, "all: of it # yes");
  EXPECT_EQ(again.owner, "true");
  EXPECT_FALSE(again.baseline);
  EXPECT_EQ(again.models[1].path, "/models/with space/and \"quotes\"");
  EXPECT_EQ(again.models[1].benchmarks[1].prompt, spec.models[1].benchmarks[1].prompt);
  EXPECT_THAT(again.models[1].benchmarks[1].prompt, HasSubstr("\\boxed{}\t\"really\"\n"));
  EXPECT_EQ(again.methods.size(), 6u);
  EXPECT_EQ(again.methods[4].method.calibration_set, "123");
  EXPECT_EQ(again.sampling.seed, INT64_MAX);
  EXPECT_EQ(again.sampling.budget_forcing_json, spec.sampling.budget_forcing_json);
  EXPECT_EQ(again.exclude[1].benchmark, "gsm8k");
  EXPECT_EQ(again.device, Device::kCuda);
  EXPECT_EQ(again.models[1].tensor_parallel_size, 2);
}

TEST(SweepSpecTest, ASweepRunsOnTheCpuUnlessItSaysCuda) {
  const std::string sweep = "name: s\nmodels: [m]\nbenchmarks: [gsm8k]\n";
  ASSERT_OK_AND_ASSIGN(const SweepSpec silent, ParseSweepSpec(sweep, "s.yaml"));
  EXPECT_EQ(silent.device, Device::kCpu);
  ASSERT_OK_AND_ASSIGN(const SweepSpec cuda, ParseSweepSpec(sweep + "device: cuda\n", "s.yaml"));
  EXPECT_EQ(cuda.device, Device::kCuda);
}

// Their tables are compared.
TEST(SweepSpecTest, TheDemosDifferInNameAndDeviceAlone) {
  const auto read = [](const std::string& name) {
    const absl::StatusOr<std::string> yaml =
        ReadFile(assay::testing::SourcePath("examples/" + name));
    EXPECT_OK(yaml.status());
    return ParseSweepSpec(yaml.value_or(""), name);
  };
  ASSERT_OK_AND_ASSIGN(const SweepSpec cpu, read("demo.yaml"));
  ASSERT_OK_AND_ASSIGN(SweepSpec cuda, read("demo-cuda.yaml"));
  EXPECT_EQ(cuda.device, Device::kCuda);
  cuda.name = cpu.name;
  cuda.device = cpu.device;
  EXPECT_EQ(PrintSweepSpec(cuda), PrintSweepSpec(cpu));
}

TEST(SweepSpecTest, ReportsSeveralErrorsAtOnceInFileOrder) {
  const std::string yaml =
      "name: s\n"
      "modles: [a]\n"
      "models: [a]\n"
      "benchmarks: [gsm8k]\n"
      "methods:\n"
      "  - {method: rnt, bits: 4-16-16}\n"
      "priority: 101\n"
      "sampling: {top_q: 1}\n";
  const absl::Status status = ParseSweepSpec(yaml, "s.yaml").status();
  EXPECT_EQ(Message(status),
            "s.yaml:2:1: unknown key 'modles' in sweep (did you mean 'models'?)\n"
            "s.yaml:6:14: unknown method 'rnt' (did you mean 'rtn'?); there are bf16, "
            "kvquant_star, quarot, rtn\n"
            "s.yaml:7:11: priority of sweep 101: must be 0 to 100\n"
            "s.yaml:8:12: unknown key 'top_q' in sampling (did you mean 'top_p'?)");
}

TEST(SweepSpecTest, ReportsAtMostTwentyErrors) {
  std::string yaml = "name: s\nmodels: [m]\nbenchmarks: [gsm8k]\n";
  for (int i = 0; i < 30; ++i) yaml += "key" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(ParseSweepSpec(yaml, "s.yaml"), IsError(kInvalid, "s.yaml: and 10 more errors"));
}

// A wrong spec and the piece that its message must have, line and column included.
struct WrongSpec {
  std::string yaml;
  std::string message;
};

// What a spec needs at least, for tests of one further line (line 4).
std::string With(const std::string& lines) {
  return "name: s\nmodels: [m]\nbenchmarks: [gsm8k]\n" + lines;
}

class WrongSpecTest : public ::testing::TestWithParam<WrongSpec> {};

TEST_P(WrongSpecTest, IsRefusedWithPositionAndReason) {
  EXPECT_THAT(ParseSweepSpec(GetParam().yaml, "s.yaml"), IsError(kInvalid, GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Structure, WrongSpecTest,
    ::testing::Values(
        WrongSpec{"", "s.yaml:1:1: the file is empty"},
        WrongSpec{"# only a comment\n", "s.yaml:1:1: the file is empty"},
        WrongSpec{"just words",
                  "s.yaml:1:1: sweep must be a mapping (key: value), not 'just words'"},
        WrongSpec{"- a\n- b\n", "s.yaml:1:1: sweep must be a mapping (key: value), not a list"},
        WrongSpec{"name: s\n  models: [\n", "s.yaml:2:"}, WrongSpec{"name: 'open", "s.yaml:"},
        WrongSpec{"name: s\n---\nname: t\n", "a second YAML document"},
        WrongSpec{"name: s\nname: t\n", "s.yaml:2:1: key 'name' stands at line 1 already"},
        WrongSpec{"name: &a s\n", "s.yaml:1:7: anchors and aliases are not allowed"},
        WrongSpec{"name: *a\n", "s.yaml:1:"},
        WrongSpec{"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "anchors and aliases"},
        WrongSpec{"name: !!python/object x\n", "s.yaml:1:7: tags are not allowed"},
        WrongSpec{"[a]: b\n", "s.yaml:1:1: a key must be a plain word"},
        WrongSpec{"name: \xff\n", "s.yaml:1:7: byte 0xff is not UTF-8 text"},
        WrongSpec{"name: s\nowner: \xc3\x28\n", "s.yaml:2:8: byte 0xc3 is not UTF-8 text"},
        WrongSpec{"name: \xed\xa0\x80\n", "byte 0xed is not UTF-8"},
        WrongSpec{std::string("name: a\0b\n", 10), "s.yaml:1:8: byte 0x00"},
        WrongSpec{std::string((1 << 20) + 1, 'x'), "a spec has at most 1048576"},
        WrongSpec{"a: " + std::string(400, '[') + std::string(400, ']'), "nested more than 8 deep"},
        WrongSpec{"a: " + std::string(100'000, '['), "s.yaml:1:"},
        WrongSpec{std::string(100'000, '{'), "s.yaml:1:"},
        WrongSpec{std::string(50'000, '-') + " a", "s.yaml:1:"}));

INSTANTIATE_TEST_SUITE_P(
    Sweep, WrongSpecTest,
    ::testing::Values(
        WrongSpec{"models: [m]\nbenchmarks: [gsm8k]\n", "s.yaml:1:1: missing key 'name' in sweep"},
        WrongSpec{"name: s\nbenchmarks: [gsm8k]\n", "s.yaml:1:1: missing key 'models' in sweep"},
        WrongSpec{"name: s\nmodels: [m]\n", "missing key 'benchmarks' in sweep"},
        WrongSpec{"name: [s]\nmodels: [m]\n",
                  "s.yaml:1:7: name of sweep must be a string, not a list"},
        WrongSpec{"name: \"\"\nmodels: [m]\n", "s.yaml:1:7: name of sweep must be one line"},
        WrongSpec{"name:\nmodels: [m]\n", "name of sweep must be a string, not nothing"},
        WrongSpec{"name: s\nmodels: m\n", "s.yaml:2:9: models of sweep must be a list, not 'm'"},
        WrongSpec{"name: s\nmodels: []\n", "s.yaml:2:9: models of sweep is an empty list"},
        WrongSpec{With("metods: []\n"),
                  "s.yaml:4:1: unknown key 'metods' in sweep (did you mean 'methods'?)"},
        WrongSpec{With("priority: high\n"), "s.yaml:4:11: priority of sweep must be an integer"},
        WrongSpec{With("priority: \"5\"\n"), "not the string '5'"},
        WrongSpec{With("priority: 1.5\n"), "must be an integer, not '1.5'"},
        WrongSpec{With("priority: 99999999999999999999\n"), "must be an integer"},
        WrongSpec{With("baseline: yes\n"), "s.yaml:4:11: baseline of sweep must be true or false"},
        WrongSpec{With("baseline: false\n"), "nothing to run"},
        WrongSpec{With("stop: {rule: decided, max_repeats: 64}\n"),
                  "s.yaml:4:14: stop rule decided is not in this version"},
        WrongSpec{With("stop: {rule: never}\n"), "unknown stop rule 'never'; there is fixed"},
        WrongSpec{With("stop: {}\n"), "missing key 'rule' in stop"},
        WrongSpec{With("repeats: 0\n"), "s.yaml:4:10: repeats of sweep 0: must be 1 to 1024"},
        WrongSpec{With("repeats: many\n"), "repeats of sweep must be an integer, not 'many'"},
        WrongSpec{
            With("repeats: {gsm8: 4}\n"),
            "s.yaml:4:11: benchmark 'gsm8' is not one of the sweep's benchmarks (did you mean "
            "'gsm8k'?)"},
        WrongSpec{With("repeats: {gsm8k: 4, GSM-8K: 2}\n"), "repeats of gsm8k are given twice"},
        WrongSpec{With("exclude: [{}]\n"),
                  "s.yaml:4:11: exclude entry {} would leave out everything"},
        WrongSpec{With("exclude: [{model: x}]\n"),
                  "s.yaml:4:19: model 'x' is not one of the sweep's"},
        WrongSpec{With("exclude: [{method: rtn}]\n"), "method 'rtn' is not one of the sweep's"}));

TEST(SweepSpecTest, AnUnknownDeviceIsTheOnlyErrorOfASpecForGpus) {
  const auto spec = ParseSweepSpec(
      "name: s\nmodels: [{name: m, tensor_parallel_size: 4}]\nbenchmarks: [gsm8k]\n"
      "device: gpu\n",
      "s.yaml");
  EXPECT_EQ(Message(spec.status()), "s.yaml:4:9: device of sweep 'gpu': must be cpu or cuda");
}

INSTANTIATE_TEST_SUITE_P(
    Models, WrongSpecTest,
    ::testing::Values(
        WrongSpec{"name: s\nmodels: [m, m]\nbenchmarks: [gsm8k]\n",
                  "s.yaml:2:13: model 'm' stands at line 2 already"},
        WrongSpec{"name: s\nmodels: [../m]\nbenchmarks: [gsm8k]\n",
                  "model name '../m' must stay inside the model roots"},
        WrongSpec{"name: s\nmodels: [{name: m, path: a/../../b}]\nbenchmarks: [gsm8k]\n",
                  "s.yaml:2:26: path of model must be one line without '..'"},
        WrongSpec{"name: s\nmodels: [{path: /m}]\nbenchmarks: [gsm8k]\n",
                  "s.yaml:2:10: missing key 'name' in model"},
        WrongSpec{"name: s\nmodels: [{name: m, tensor_parallel_size: 4}]\nbenchmarks: [gsm8k]\n",
                  "s.yaml:2:42: tensor_parallel_size 4 needs GPUs: add 'device: cuda' to the "
                  "sweep, or use 1"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [gsm8k]\ndevice: gpu\n",
                  "s.yaml:4:9: device of sweep 'gpu': must be cpu or cuda"},
        WrongSpec{"name: s\nmodels: [[m]]\nbenchmarks: [gsm8k]\n",
                  "model must be a mapping (key: value), not a list"}));

INSTANTIATE_TEST_SUITE_P(
    Benchmarks, WrongSpecTest,
    ::testing::Values(
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [gsm9k]\n",
                  "s.yaml:3:14: unknown benchmark 'gsm9k' (did you mean 'gsm8k'?); there are "
                  "arith500, gsm8k, math500, aime120; one of your own needs a path"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [gpqa_diamond]\n",
                  "s.yaml:3:14: benchmark gpqa_diamond is not in this version; it has arith500"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [LiveCodeBench]\n",
                  "benchmark livecodebench is not in this version"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [math500, math-500]\n",
                  "s.yaml:3:23: benchmark 'math500' stands at line 3 already"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [{name: gsm8k, limit: 0}]\n",
                  "limit of benchmark 0: must be 1 to 1000000"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [{name: gsm8k, prompt: hi}]\n",
                  "prompt of benchmark 'gsm8k' has no {question} in it"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [{name: gsm8k, grader: boxed}]\n",
                  "unknown grader 'boxed'"},
        WrongSpec{"name: s\nmodels: [m]\nbenchmarks: [{name: gsm8k, version: v1}]\n",
                  "s.yaml:3:37: version 'v1' of benchmark: write the first 8 to 64 hexadecimal"}));

INSTANTIATE_TEST_SUITE_P(
    Methods, WrongSpecTest,
    ::testing::Values(
        WrongSpec{With("methods: [rtn]\n"), "method must be a mapping (key: value), not 'rtn'"},
        WrongSpec{With("methods: [{bits: 4-16-16}]\n"),
                  "s.yaml:4:11: missing key 'method' in method"},
        WrongSpec{With("methods: [{method: rtn}]\n"),
                  "method rtn needs bits; it takes 2-16-16 to 8-16-16"},
        WrongSpec{With("methods: [{method: rtn, bits: []}]\n"), "bits of method is an empty list"},
        WrongSpec{With("methods: [{method: rtn, bits: 4}]\n"),
                  "s.yaml:4:31: bits '4': write weights-activations-cache, as 4-16-16"},
        WrongSpec{With("methods: [{method: rtn, bits: [4-16-16, 9-16-16]}]\n"),
                  "s.yaml:4:41: rtn does not take bits 9-16-16; it takes 2-16-16 to 8-16-16"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16-}]\n"), "bits '4-16-16-'"},
        WrongSpec{With("methods: [{method: rtn, bits: 4--16-16}]\n"), "bits '4--16-16'"},
        WrongSpec{With("methods: [{method: rtn, bits: -4-16-16}]\n"), "bits '-4-16-16'"},
        WrongSpec{With("methods: [{method: awq, bits: 4-16-16}]\n"),
                  "method awq is not in this version; it has bf16, kvquant_star, quarot, rtn"},
        WrongSpec{With("methods: [{method: quarot, bits: 4-4-4}]\n"),
                  "quarot with bits 4-4-4 quantizes weights and activations, which is not in this "
                  "version; quarot takes 16-16-2 to 16-16-8"},
        WrongSpec{With("methods: [{method: kvquant_star, bits: 16-16-4}]\n"),
                  "kvquant_star needs a calibration set: add 'calibration: NAME'"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16, pre_bias: true}]\n"),
                  "method rtn has no pre_bias; take it out"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16, group_size: 0}]\n"),
                  "group_size 0: must be -1"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16, group_size: big}]\n"),
                  "s.yaml:4:52: group_size of method must be an integer, not 'big'"},
        WrongSpec{With("methods: [{method: kvquant_star, bits: 16-16-4, calibration: ../x}]\n"),
                  "calibration '../x' must be the name of a set"},
        WrongSpec{With("methods: [{method: kvquant_star, bits: 16-16-4, calibration: {set: x, "
                       "self_generated: true}}]\n"),
                  "self-generated calibration is not in this version"},
        WrongSpec{With("methods: [{checkpoint: /models/x-AWQ}]\n"),
                  "s.yaml:4:24: checkpoint entries (somebody else's quantized model) are not "
                  "supported yet"},
        WrongSpec{With("methods: [{method: rtn, bits: [4-16-16, 4-16-16]}]\n"),
                  "rtn 4-16-16 stands at line 4 already, with the same parameters"},
        WrongSpec{With("methods:\n- {method: rtn, bits: 4-16-16}\n"
                       "- {method: rtn, bits: 4-16-16, group_size: 128, models: [m]}\n"),
                  "s.yaml:6:3: rtn 4-16-16 stands at line 5 already"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16, models: [n]}]\n"),
                  "s.yaml:4:49: model 'n' is not one of the sweep's models"},
        WrongSpec{With("methods: [{method: rtn, bits: 4-16-16, benchmarks: aime120}]\n"),
                  "benchmark 'aime120' is not one of the sweep's benchmarks"}));

INSTANTIATE_TEST_SUITE_P(
    Sampling, WrongSpecTest,
    ::testing::Values(
        WrongSpec{With("sampling: 0.6\n"), "s.yaml:4:11: sampling must be a mapping"},
        WrongSpec{With("sampling: {temperature: hot}\n"),
                  "s.yaml:4:25: temperature of sampling must be a number, not 'hot'"},
        WrongSpec{With("sampling: {temperature: -1}\n"),
                  "temperature of sampling -1: must be 0 to"},
        WrongSpec{With("sampling: {temperature: nan}\n"), "must be a number, not 'nan'"},
        WrongSpec{With("sampling: {top_p: 0}\n"), "top_p of sampling 0: must be above 0"},
        WrongSpec{With("sampling: {top_p: 1.1}\n"), "top_p of sampling 1.1: must be 0 to 1"},
        WrongSpec{With("sampling: {max_tokens: 0}\n"), "max_tokens of sampling 0: must be 1 to"},
        WrongSpec{With("sampling: {seed: -1}\n"), "seed of sampling -1"},
        WrongSpec{With("sampling: {max_token: 5}\n"),
                  "unknown key 'max_token' in sampling (did you mean 'max_tokens'?)"},
        WrongSpec{With("sampling: {budget_forcing: {}}\n"), "budget_forcing does nothing"}));

TEST(SweepSpecTest, SameMethodMayServeDifferentModels) {
  EXPECT_OK(
      ParseSweepSpec("name: s\nmodels: [a, b]\nbenchmarks: [gsm8k]\nmethods:\n"
                     "- {method: rtn, bits: 4-16-16, models: [a]}\n"
                     "- {method: rtn, bits: 4-16-16, models: [b]}\n",
                     "s.yaml"));
}

// Truncations and single-byte changes of a full spec: whatever they are, they are no crash.
TEST(SweepSpecTest, SurvivesDamagedSpecs) {
  const std::string whole = kEverything;
  for (size_t length = 0; length < whole.size(); length += 7) {
    (void)ParseSweepSpec(whole.substr(0, length), "s.yaml");
  }
  uint32_t state = 12345;
  const auto next = [&state] { return state = state * 1664525u + 1013904223u; };
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = whole;
    for (int k = 0; k < 3; ++k) {
      damaged[(next() >> 8) % damaged.size()] = "[]{}:,-#&*!|>'\"%@` \n\tx0"[(next() >> 8) % 23];
    }
    const absl::StatusOr<SweepSpec> spec = ParseSweepSpec(damaged, "s.yaml");
    if (!spec.ok()) continue;
    const std::string resolved = PrintSweepSpec(*spec);
    ASSERT_OK_AND_ASSIGN(const SweepSpec again, ParseSweepSpec(resolved, "again.yaml"));
    EXPECT_EQ(PrintSweepSpec(again), resolved);
  }
}

}  // namespace
}  // namespace assay::coordinator
