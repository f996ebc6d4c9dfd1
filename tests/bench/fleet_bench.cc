// fleet_bench samples|sync|restart DIR: see fleet_bench.h and --help.
#include "tests/bench/fleet_bench.h"

#include <CLI/CLI.hpp>

int main(int argc, char** argv) {
  CLI::App app("What a fleet asks of a coordinator. DIR should be on the disk a coordinator uses.");
  app.require_subcommand(1);

  assay::bench::SamplesOptions samples;
  CLI::App* measure_samples = app.add_subcommand("samples", "Durable samples a second");
  measure_samples->add_option("DIR", samples.dir)->required();
  measure_samples->add_option("--connections", samples.num_connections)->capture_default_str();
  measure_samples->add_option("--seconds", samples.seconds)->capture_default_str();
  measure_samples->add_option("--text-bytes", samples.text_bytes)->capture_default_str();

  assay::bench::SyncOptions sync;
  CLI::App* measure_sync = app.add_subcommand("sync", "Latency of workers' heartbeats");
  measure_sync->add_option("DIR", sync.dir)->required();
  measure_sync->add_option("--workers", sync.num_workers)->capture_default_str();
  measure_sync->add_option("--interval", sync.interval_s, "Seconds")->capture_default_str();
  measure_sync->add_option("--seconds", sync.seconds)->capture_default_str();
  measure_sync->add_option("--lease", sync.lease_s, "Seconds that 16 units take")
      ->capture_default_str();

  assay::bench::RestartOptions restart;
  CLI::App* measure_restart = app.add_subcommand("restart", "Start, memory, reports");
  measure_restart->add_option("DIR", restart.dir)->required();
  measure_restart->add_option("--samples", restart.num_samples)->capture_default_str();
  measure_restart->add_option("--cells", restart.num_cells)->capture_default_str();

  CLI11_PARSE(app, argc, argv);
  if (*measure_samples) assay::bench::MeasureSamples(samples);
  if (*measure_sync) assay::bench::MeasureSync(sync);
  if (*measure_restart) assay::bench::MeasureRestart(restart);
  return 0;
}
