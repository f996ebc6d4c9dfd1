#include "coordinator/planner/benchmark_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/file.h"
#include "coordinator/planner/calibration_file.h"
#include "coordinator/spec/benchmark_registry.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;
using assay::testing::kNoShared;
using assay::testing::SharedPath;
using assay::testing::TemporaryDirectory;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

BenchmarkSpec Named(const std::string& name) {
  BenchmarkSpec spec;
  spec.name = name;
  const BenchmarkDefinition* definition = FindBenchmarkDefinition(name);
  spec.prompt = definition != nullptr ? definition->prompt : "{question}";
  spec.grader = definition != nullptr ? definition->grader : "boxed_number";
  return spec;
}

TEST(BenchmarkFileTest, ReadsFieldsAndNumbers) {
  ASSERT_OK_AND_ASSIGN(
      const std::vector<BenchmarkItem> items,
      ParseBenchmarkJsonl("{\"id\": \"a\", \"question\": \"q\\n\", \"answer\": 7, \"level\": 2, "
                          "\"subject\": \"s\", \"extra\": [1, {}]}\r\n"
                          "\n"
                          "{\"id\": 12, \"question\": \"r\", \"answer\": \"x\", \"level\": null}",
                          "f"));
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].name, "a");
  EXPECT_EQ(items[0].question, "q\n");
  EXPECT_EQ(items[0].answer, "7");
  EXPECT_EQ(items[0].level, "2");
  EXPECT_EQ(items[0].subject, "s");
  EXPECT_EQ(items[1].name, "12");
  EXPECT_EQ(items[1].level, "");
}

TEST(BenchmarkFileTest, NamesLineAndFieldOfWhatIsWrong) {
  const std::string good = R"({"id":"a","question":"q","answer":"1"})";
  const struct {
    std::string jsonl, message;
  } cases[] = {
      {"", "f: no items in it"},
      {"\n \n", "f: no items in it"},
      {good + "\n{", "f:2"},
      {good + "\n[]", "f:2: must be a JSON object"},
      {good + "\n\"text\"", "f:2: must be a JSON object"},
      {"{\"id\":\"a\",\"question\":\"q\"}", "f:1: field 'answer' is missing or empty"},
      {"{\"id\":\"a\",\"question\":\"\",\"answer\":\"1\"}", "f:1: field 'question' is missing"},
      {"{\"id\":[],\"question\":\"q\",\"answer\":\"1\"}", "f:1: field 'id' must be a string or a"},
      {"{\"id\":\"a\",\"question\":\"q\",\"answer\":true}", "f:1: field 'answer' must be a string"},
      {good + "\n" + good, "f:2: id 'a' stands at f:1 already"},
      {"{\"id\":\"a\",\"id\":\"b\",\"question\":\"q\",\"answer\":\"1\"}", "f:1"},
      {"{\"id\":\"\xff\",\"question\":\"q\",\"answer\":\"1\"}", "f:1"},
      {"{\"id\":" + std::string(100'000, '[') + "}", "f:1"},
      {"{\"id\":\"" + std::string(201, 'x') + "\",\"question\":\"q\",\"answer\":\"1\"}",
       "f:1: field 'id' has 201 bytes; at most 200"},
      {std::string((4 << 20) + 1, ' ') + "x", "f:1: a line of 4194306 bytes"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseBenchmarkJsonl(c.jsonl, "f"), IsError(kInvalid, c.message));
  }
}

TEST(BenchmarkFileTest, FindsAFileInItsFolderOrBesideTheOthers) {
  const TemporaryDirectory root;
  const std::string line = R"({"id":"a","question":"q","answer":"1"})";
  ASSERT_OK(WriteFileAtomically(root / "gsm8k.jsonl", line));
  ASSERT_OK(MakeDirectories(root / "aime120"));
  ASSERT_OK(WriteFileAtomically(root / "aime120/test.jsonl", line));
  EXPECT_OK(LoadBenchmark({"/nowhere", root.path()}, Named("gsm8k")));
  EXPECT_OK(LoadBenchmark({root.path()}, Named("aime120")));
  EXPECT_THAT(LoadBenchmark({root.path()}, Named("math500")),
              IsError(kNotFound, "benchmark 'math500': no math500/test.jsonl or math500.jsonl"));
  EXPECT_THAT(LoadBenchmark({}, Named("gsm8k")), IsError(kNotFound, "(no benchmark roots)"));
}

TEST(BenchmarkFileTest, ReadsABenchmarkOfOnesOwnByItsPath) {
  const TemporaryDirectory root;
  ASSERT_OK(WriteFileAtomically(root / "mine.jsonl", R"({"id":"a","question":"q","answer":"1"})"));
  BenchmarkSpec spec = Named("mine");
  spec.path = root / "mine.jsonl";
  EXPECT_OK(LoadBenchmark({}, spec));
  spec.path = "mine.jsonl";
  EXPECT_OK(LoadBenchmark({root.path()}, spec));
  spec.path = "gone.jsonl";
  EXPECT_THAT(LoadBenchmark({root.path()}, spec), IsError(kNotFound, "no gone.jsonl under"));
  spec.path = "/gone.jsonl";
  EXPECT_THAT(LoadBenchmark({}, spec), IsError(kNotFound, "benchmark 'mine'"));
}

std::vector<BenchmarkItem> SixItems() {
  std::vector<BenchmarkItem> items;
  for (const char* level : {"1", "1", "2", "2", "1", "2"}) {
    BenchmarkItem item;
    item.name = "i" + std::to_string(items.size());
    item.question = "q";
    item.answer = "1";
    item.level = level;
    items.push_back(item);
  }
  return items;
}

std::string Names(const std::vector<BenchmarkItem>& items) {
  std::string names;
  for (const BenchmarkItem& item : items) names += item.name;
  return names;
}

TEST(BenchmarkFileTest, SubsetsAreTheFirstItemsInFileOrder) {
  EXPECT_EQ(Names(SelectItems(SixItems(), 0, 0)), "i0i1i2i3i4i5");
  EXPECT_EQ(Names(SelectItems(SixItems(), 4, 0)), "i0i1i2i3");
  EXPECT_EQ(Names(SelectItems(SixItems(), 0, 1)), "i0i2");
  EXPECT_EQ(Names(SelectItems(SixItems(), 3, 2)), "i0i1i2");
  EXPECT_EQ(Names(SelectItems(SixItems(), 99, 99)), "i0i1i2i3i4i5");
}

TEST(BenchmarkFileTest, VersionChangesWithItemsPromptAndGraderAndNothingElse) {
  const std::vector<BenchmarkItem> items = SixItems();
  const BenchmarkSpec spec = Named("gsm8k");
  const std::string version = MakeBenchmark(spec, items).benchmark.version_hash;
  EXPECT_EQ(version.size(), 64u);
  EXPECT_EQ(MakeBenchmark(spec, items).benchmark.version_hash, version);

  BenchmarkSpec other = spec;
  other.path = "/elsewhere.jsonl";
  other.where = {7, 7};
  EXPECT_EQ(MakeBenchmark(other, items).benchmark.version_hash, version);
  other.prompt = "Now: {question}";
  EXPECT_NE(MakeBenchmark(other, items).benchmark.version_hash, version);
  EXPECT_THAT(MakeBenchmark(other, items).benchmark.prompt_version, HasSubstr("custom-"));
  other = spec;
  other.grader = "boxed_text";
  EXPECT_NE(MakeBenchmark(other, items).benchmark.version_hash, version);
  for (std::string BenchmarkItem::*field :
       {&BenchmarkItem::name, &BenchmarkItem::question, &BenchmarkItem::answer,
        &BenchmarkItem::level, &BenchmarkItem::subject}) {
    std::vector<BenchmarkItem> changed = items;
    changed[3].*field += "x";
    EXPECT_NE(MakeBenchmark(spec, changed).benchmark.version_hash, version);
  }
}

TEST(BenchmarkFileTest, PromptsAreFilledInOnce) {
  BenchmarkSpec spec = Named("gsm8k");
  spec.prompt = "A {question} B {question}";
  std::vector<BenchmarkItem> items = SixItems();
  items[0].question = "say {question}";
  EXPECT_EQ(MakeBenchmark(spec, items).items[0].user_text, "A say {question} B say {question}");
}

// The files that a user really has.
TEST(BenchmarkFileTest, ReadsTheRealBenchmarks) {
  const std::string root = SharedPath("data");
  if (root.empty()) GTEST_SKIP() << kNoShared;
  const struct {
    std::string name;
    size_t num_items;
  } cases[] = {{"arith500", 500}, {"gsm8k", 1319}, {"math500", 500}, {"aime120", 120}};
  for (const auto& c : cases) {
    ASSERT_OK_AND_ASSIGN(const std::vector<BenchmarkItem> items,
                         LoadBenchmark({root}, Named(c.name)));
    EXPECT_EQ(items.size(), c.num_items) << c.name;
    for (const BenchmarkItem& item : items) EXPECT_THAT(item.answer, Not(HasSubstr("####")));
  }
}

TEST(CalibrationFileTest, KeepsOnlyWhatWorkersRead) {
  ASSERT_OK_AND_ASSIGN(
      const CalibrationSet set,
      ParseCalibrationJsonl("{\"response\": \"r\", \"question\": \"q\", \"x\": 1}\n"
                            "{\"text\": \"plain\"}\n",
                            "f"));
  EXPECT_EQ(set.jsonl, "{\"question\":\"q\",\"response\":\"r\"}\n{\"text\":\"plain\"}\n");
  EXPECT_EQ(set.num_records, 2);
  ASSERT_OK_AND_ASSIGN(const CalibrationSet same,
                       ParseCalibrationJsonl(
                           "{\"question\":\"q\",\"response\":\"r\"}\n\n{\"text\":\"plain\"}", "g"));
  EXPECT_EQ(same.hash, set.hash);
}

TEST(CalibrationFileTest, NamesTheLineOfWhatIsWrong) {
  for (const std::string& bad :
       {std::string("{\"question\":\"q\"}"), std::string("{\"response\":\"q\"}"),
        std::string("{\"text\":\"t\",\"question\":\"q\"}"), std::string("{}")}) {
    EXPECT_THAT(ParseCalibrationJsonl("{\"text\":\"t\"}\n" + bad, "f"),
                IsError(kInvalid, "f:2: needs the fields 'question' and 'response', or 'text'"));
  }
  EXPECT_THAT(ParseCalibrationJsonl("{\"text\":\"\"}", "f"),
              IsError(kInvalid, "f:1: field 'text' is empty"));
  EXPECT_THAT(ParseCalibrationJsonl("", "f"), IsError(kInvalid, "f: no records in it"));
}

TEST(CalibrationFileTest, FindsASetByNameAndSuggestsTheNearest) {
  const TemporaryDirectory root;
  ASSERT_OK(WriteFileAtomically(root / "traces.jsonl", "{\"text\":\"t\"}"));
  EXPECT_OK(LoadCalibrationSet({root.path()}, "traces"));
  EXPECT_THAT(LoadCalibrationSet({root.path()}, "trace"),
              IsError(kNotFound, "(did you mean 'traces'?)"));
  EXPECT_THAT(LoadCalibrationSet({root.path()}, "../traces"),
              IsError(kInvalid, "must be a plain name"));
}

}  // namespace
}  // namespace assay::coordinator
