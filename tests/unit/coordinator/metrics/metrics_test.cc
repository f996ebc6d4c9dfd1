#include "coordinator/metrics/metrics.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace assay::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LiveWorker MakeWorker(const std::string& worker_id, bool online) {
  LiveWorker worker;
  worker.worker_id = worker_id;
  worker.online = online;
  worker.silent_us = online ? 1'500'000 : 60'000'000;
  worker.num_leases = 2;
  worker.num_units = 32;
  worker.tokens_per_s = online ? 1234.5 : 0;
  worker.slots = {{.index = 0, .memory_bytes = 100}, {.index = 1, .memory_bytes = 100}};
  worker.slot_states = {
      {.index = 0, .num_running = 3, .tokens_per_s = 1234.5, .memory_used_bytes = 70},
      {.index = 1}};
  return worker;
}

MetricsInput MakeInput() {
  MetricsInput input;
  input.live.num_units_queued = 11;
  input.live.num_units_running = 7;
  input.live.num_cells_without_slot = 6;
  input.live.counters = {.num_accepted = 5, .num_duplicates = 2, .num_fenced = 1, .num_rerolls = 3};
  input.live.commit_seconds.Add(0.004);
  input.live.batch_sizes.Add(12);
  input.live.workers = {MakeWorker("a", true), MakeWorker("b", false)};
  input.store.num_sweeps = {{storage::SweepState::kDone, 4}};
  input.store.num_samples = 99;
  input.store.database_bytes = 4096;
  input.store.wal_bytes = 512;
  input.rpcs = {{"SweepService/GetSweep", "OK", 8}};
  return input;
}

TEST(MetricsTest, TellsWhatTheSnapshotTells) {
  const std::string text = RenderMetrics(MakeInput());
  for (const char* line : {"assay_units_queued 11\n",
                           "assay_units_running 7\n",
                           "assay_cells_without_slot 6\n",
                           "assay_leases_open 4\n",
                           "assay_samples_total{outcome=\"accepted\"} 5\n",
                           "assay_samples_total{outcome=\"duplicate\"} 2\n",
                           "assay_samples_total{outcome=\"fenced\"} 1\n",
                           "assay_rerolls_total 3\n",
                           "assay_commit_seconds_bucket{le=\"0.0025\"} 0\n",
                           "assay_commit_seconds_bucket{le=\"0.005\"} 1\n",
                           "assay_commit_seconds_count 1\n",
                           "assay_batch_size_bucket{le=\"16\"} 1\n",
                           "assay_sweeps{state=\"done\"} 4\n",
                           "assay_sweeps{state=\"active\"} 0\n",
                           "assay_workers{state=\"online\"} 1\n",
                           "assay_workers{state=\"offline\"} 1\n",
                           "assay_worker_up{worker=\"b\"} 0\n",
                           "assay_worker_silent_seconds{worker=\"a\"} 1.5\n",
                           "assay_worker_tokens_per_second{worker=\"a\"} 1234.5\n",
                           "assay_slot_memory_used_bytes{worker=\"a\",slot=\"0\"} 70\n",
                           "assay_slot_tokens_per_second{worker=\"a\",slot=\"0\"} 1234.5\n",
                           "assay_database_bytes 4096\n",
                           "assay_wal_bytes 512\n",
                           "assay_samples_stored 99\n",
                           "assay_rpcs_total{method=\"SweepService/GetSweep\",code=\"OK\"} 8\n",
                           "assay_build_info{version="}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

// What a scraper insists on: every line is a comment or a sample, a family's lines are together
// under one TYPE, and no series comes twice.
TEST(MetricsTest, EveryLineIsOneThatPrometheusTakes) {
  static const std::regex kSample(
      R"re(([a-z_]+)(\{[a-z_]+="([^"\\]|\\.)*"(,[a-z_]+="([^"\\]|\\.)*")*\})? (-?[0-9.e+]+|\+Inf|NaN))re");
  std::istringstream lines(RenderMetrics(MakeInput()));
  std::set<std::string> families;
  std::set<std::string> series;
  std::string family;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      family = line.substr(7, line.rfind(' ') - 7);
      EXPECT_TRUE(families.insert(family).second) << family;
      EXPECT_EQ(line.ends_with(" counter"), family.ends_with("_total")) << line;
      continue;
    }
    std::smatch match;
    ASSERT_TRUE(std::regex_match(line, match, kSample)) << line;
    EXPECT_TRUE(match[1].str().starts_with(family)) << line;
    EXPECT_TRUE(series.insert(line.substr(0, line.rfind(' '))).second) << line;
  }
  EXPECT_GT(families.size(), 30u);
}

TEST(MetricsTest, AHugeFleetIsCountedAndListedInPart) {
  MetricsInput input = MakeInput();
  input.live.workers.clear();
  for (size_t i = 0; i < kMaxWorkers + 5; ++i) {
    input.live.workers.push_back(MakeWorker(fmt::format("worker-{:04}", i), i >= 5));
  }
  const std::string text = RenderMetrics(input);
  EXPECT_THAT(text, HasSubstr("assay_workers{state=\"offline\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("assay_worker_up{worker=\"worker-1004\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("worker=\"worker-0000\""))) << "the silent ones are left out";
}

TEST(MetricsTest, TheProcessKnowsItsMemory) {
  EXPECT_GT(ReadProcessStats().resident_bytes, 1 << 20);
}

}  // namespace
}  // namespace assay::coordinator
