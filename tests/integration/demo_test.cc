// The demo as a newcomer runs it, and its results against what Hugging Face transformers measured
// on the same models (temperature 0.6, top-p 0.95, 60 problems a level).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using testing::BinaryPath;
using testing::CommandResult;
using testing::RunProgram;
using testing::TemporaryDirectory;

// Accuracy over all 500 problems by the independent implementation (tests/golden/README.md).
struct Reference {
  const char* cell;  // model, method label, bits
  double accuracy;
};
constexpr Reference kReferences[] = {
    {"tiny-qwen2-1m bf16 16-16-16", 0.972},
    {"tiny-qwen2-1m rtn 4-16-16", 0.934},
    {"tiny-qwen2-1m rtn 3-16-16", 0.442},
    {"tiny-qwen2-1m rtn 2-16-16", 0.002},
    {"tiny-qwen2-1m kvquant_star pre-bias 16-16-4", 0.910},
    {"tiny-qwen2-1m kvquant_star pre-bias 16-16-3", 0.544},
    {"tiny-qwen2-1m kvquant_star 16-16-4", 0.816},
    {"tiny-qwen2-1m quarot 16-16-4", 0.000},
    {"tiny-llama-5m bf16 16-16-16", 0.992},
    {"tiny-llama-5m rtn 4-16-16", 0.990},
    {"tiny-llama-5m rtn 3-16-16", 0.986},
    {"tiny-llama-5m rtn 2-16-16", 0.608},
};

// Four standard errors of the difference of two binomial shares, and never less than one problem in
// fifty: a right implementation fails once in ten thousand.
double Tolerance(double p, double n_reference, double n) {
  const double variance = std::max(p * (1 - p), 0.01);
  return 4 * std::sqrt(variance * (1 / n_reference + 1 / n));
}

bool HasGpu() {
#ifdef ASSAY_WITH_CUDA
  return std::filesystem::exists("/dev/nvidiactl");
#else
  return false;
#endif
}

class DemoTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DemoTest, TheTableAgreesWithTheIndependentMeasurement) {
  const std::string device = GetParam();
  if (device == "cuda" && !HasGpu()) GTEST_SKIP() << "no GPU here, or a build without CUDA";
  const TemporaryDirectory directory;
  const CommandResult demo =
      RunProgram({BinaryPath("assay"), "demo", "--device", device, "--data", directory / "demo"},
                 "", {"NO_COLOR=1"});
  ASSERT_EQ(demo.exit_code, 0) << demo.err << demo.out;
  for (const char* piece :
       {"tiny-qwen2-1m", "quarot", "baseline", "undecided", "risky", "query --db"}) {
    EXPECT_NE((demo.out + demo.err).find(piece), std::string::npos) << piece << "\n" << demo.out;
  }

  const CommandResult cells = RunProgram(
      {BinaryPath("assay"), "query",
       "SELECT model || ' ' || method_label || ' ' || bits AS cell, num_samples, accuracy,"
       " num_samples - num_correct AS num_wrong FROM v_cell ORDER BY 1",
       "--db", directory / "demo/assay.db", "-o", "json"});
  ASSERT_EQ(cells.exit_code, 0) << cells.err;
  std::map<std::string, nlohmann::json> found;
  for (const auto& row : nlohmann::json::parse(cells.out)) found[row.at("cell")] = row;
  EXPECT_EQ(found.size(), 12u) << cells.out;

  for (const Reference& reference : kReferences) {
    ASSERT_TRUE(found.contains(reference.cell)) << reference.cell << "\n" << cells.out;
    const auto& row = found.at(reference.cell);
    const double n = row.at("num_samples").get<double>();
    EXPECT_EQ(n, std::string(reference.cell).starts_with("tiny-qwen2") ? 500 : 250);
    EXPECT_NEAR(row.at("accuracy").get<double>(), reference.accuracy,
                Tolerance(reference.accuracy, 500, n))
        << reference.cell;
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, DemoTest, ::testing::Values("cpu", "cuda"),
                         [](const auto& device) { return std::string(device.param); });

}  // namespace
}  // namespace assay
