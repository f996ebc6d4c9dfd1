// Benchmark and calibration files as a stranger wrote them.
#include "coordinator/planner/benchmark_file.h"
#include "coordinator/planner/calibration_file.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = assay::fuzz::AsText(data, size);
  const auto items = assay::coordinator::ParseBenchmarkJsonl(input, "fuzz.jsonl");
  if (items.ok()) {
    assay::coordinator::BenchmarkSpec spec;
    spec.name = "fuzz";
    spec.prompt = "{question}";
    (void)assay::coordinator::MakeBenchmark(spec, assay::coordinator::SelectItems(*items, 0, 2));
  }
  (void)assay::coordinator::ParseCalibrationJsonl(input, "fuzz.jsonl");
  return 0;
}
