// model.safetensors as a stranger wrote it.
#include "engine/weights/checkpoint.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  folder.Write("model.safetensors", assay::fuzz::AsText(data, size));
  const auto checkpoint = assay::engine::Checkpoint::Open(folder.path());
  if (!checkpoint.ok()) return 0;
  for (const std::string& name : (*checkpoint)->names()) {
    const auto tensor = (*checkpoint)->Find(name);
    if (!tensor.ok()) continue;
    // Every byte that the view promises can be read.
    unsigned sum = 0;
    for (const std::byte b : tensor->bytes) sum += static_cast<unsigned>(b);
    (void)sum;
    (void)(*checkpoint)->ReadFloats(name, tensor->shape);
  }
  return 0;
}
