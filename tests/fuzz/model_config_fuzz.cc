// config.json as a stranger wrote it.
#include "engine/model/config.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  folder.Write("config.json", assay::fuzz::AsText(data, size));
  (void)assay::engine::LoadModelConfig(folder.path());
  return 0;
}
