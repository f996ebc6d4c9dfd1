#include <filesystem>

#include "storage/stores/control_store.h"
#include "tests/bench/bench_clock.h"
#include "tests/bench/bench_worker.h"
#include "tests/bench/coordinator_process.h"
#include "tests/bench/filled_store.h"
#include "tests/bench/fleet_bench.h"

namespace assay::bench {
namespace {

constexpr int kNumCells = 50;
constexpr int32_t kNumItems = 500;

void FillDatabase(const std::string& path, const RestartOptions& options) {
  const auto store = Must(storage::ControlStore::Open(path));
  const PlanShape done = {
      .sweep_id = "sweep-done",
      .num_cells = kNumCells,
      .num_items = kNumItems,
      .num_repeats = (options.num_samples + kNumCells * kNumItems - 1) / (kNumCells * kNumItems)};
  FillSamples(store.get(), WritePlan(store.get(), done), done);
  const PlanShape queued = {.sweep_id = "sweep-queued",
                            .num_cells = options.num_cells,
                            .num_items = kNumItems,
                            .num_repeats = 8};
  WritePlan(store.get(), queued);
}

}  // namespace

void MeasureRestart(const RestartOptions& options) {
  const std::string path = options.dir + "/data/assay.db";
  if (!std::filesystem::exists(path)) {
    std::filesystem::create_directories(options.dir + "/data");
    FillDatabase(path, options);
  }
  const auto megabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e6; };
  fmt::print("database: {:.0f} MB, {} samples, {} cells queued\n",
             megabytes(static_cast<int64_t>(std::filesystem::file_size(path))), options.num_samples,
             options.num_cells);
  CoordinatorProcess coordinator(options.dir, {"--log-level", "warn"});
  for (int i = 0; i < 3; ++i) {
    coordinator.Kill();
    const double seconds = coordinator.Start();
    fmt::print("start to serving after SIGKILL: {:.2f} s ({:.2f} s CPU), {:.0f} MB resident\n",
               seconds, coordinator.CpuSeconds(), megabytes(coordinator.ResidentBytes()));
  }
  for (const std::vector<std::string>& command :
       {std::vector<std::string>{"results", "sweep-done"},
        {"sweep", "ls"},
        {"query", "SELECT * FROM v_cell"},
        {"query",
         "SELECT cell_id, count(*), sum(flip = 'harmful') FROM v_paired WHERE sweep_id ="
         " 'sweep-done' GROUP BY cell_id"}}) {
    std::vector<double> seconds;
    const double cpu = coordinator.CpuSeconds();
    for (int i = 0; i < 3; ++i) seconds.push_back(coordinator.TimeCommand(command));
    std::string words;
    for (const std::string& word : command) words += " " + word;
    fmt::print("{:.2f} s ({:.2f} s CPU of the coordinator)  assay{}\n", Quantile(seconds, 0.5),
               (coordinator.CpuSeconds() - cpu) / 3, words);
  }
  fmt::print("coordinator's memory: {:.0f} MB resident, {:.0f} MB at its peak\n",
             megabytes(coordinator.ResidentBytes()), megabytes(coordinator.PeakBytes()));
  coordinator.Stop();
}

}  // namespace assay::bench
