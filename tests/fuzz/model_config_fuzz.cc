// config.json as a stranger wrote it, to the engine and to the planner, which reads it by itself.
#include <cstdlib>
#include <string>

#include "coordinator/planner/memory_need.h"
#include "coordinator/spec/method_rules.h"
#include "engine/model/config.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  const auto text = assay::fuzz::AsText(data, size);
  folder.Write("config.json", text);
  (void)assay::engine::LoadModelConfig(folder.path());
  const auto dimensions =
      assay::coordinator::ParseModelDimensions(std::string(text), "config.json");
  if (dimensions.ok()) {
    assay::storage::CellRecord cell;
    cell.method = assay::coordinator::BaselineMethod();
    if (assay::coordinator::MemoryNeedBytes(*dimensions, cell) <= 0) std::abort();
  }
  return 0;
}
