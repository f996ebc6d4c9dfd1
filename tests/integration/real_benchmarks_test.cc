// The same door takes the real files: GSM8K and MATH-500 run to the end with a tiny model, which
// knows no mathematics; prompts, tokens, grading and rows are what is checked.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::CommandResult;
using testing::kNoShared;
using testing::LocalSystem;
using testing::SharedPath;
using testing::TemporaryDirectory;
using testing::WaitUntil;

TEST(RealBenchmarksTest, Gsm8kAndMath500RunToTheEnd) {
  const std::string data = SharedPath("data");
  if (data.empty()) GTEST_SKIP() << kNoShared;
  const TemporaryDirectory directory;
  LocalSystem system({.directory = directory.path(), .benchmark_roots = {data}});
  ASSERT_OK(system.StartCoordinator());
  ASSERT_OK(system.StartWorker("w1", 2));
  ASSERT_OK_AND_ASSIGN(const std::string sweep, system.Submit(R"(
name: real
models: [{name: tiny-qwen2-1m}]
methods: [{method: rtn, bits: 4-16-16}]
benchmarks: [gsm8k, math500]
sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 48}
)"));
  ASSERT_TRUE(WaitUntil([&] { return system.SweepSettled(sweep); }, absl::Minutes(6)))
      << system.Logs();

  const CommandResult result = system.Assay({"results", sweep, "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  int num_rows = 0;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    if (row.at("level") != "all") continue;
    ++num_rows;
    EXPECT_EQ(row.at("num_samples"), row.at("benchmark") == "gsm8k" ? 1319 : 500) << line;
    EXPECT_LT(row.at("accuracy").get<double>(), 0.1) << line;
  }
  EXPECT_EQ(num_rows, 4) << result.out;

  // Each prompt is the question with the study's instruction, and its tokens were counted.
  const CommandResult prompts = system.Assay(
      {"query",
       "SELECT count(*) AS n FROM item JOIN sample ON sample.item_index = item.item_index"
       " JOIN cell ON cell.id = sample.cell_id AND cell.benchmark_id = item.benchmark_id"
       " WHERE item.user_text LIKE '%\\boxed{}.' AND sample.prompt_tokens > 20",
       "--db", system.database(), "-o", "json"});
  ASSERT_EQ(prompts.exit_code, 0) << prompts.err;
  EXPECT_EQ(nlohmann::json::parse(prompts.out)[0].at("n"), 2 * (1319 + 500));
}

}  // namespace
}  // namespace assay
