// Packed texts and token ids as a worker sent them: bounded, and whole or refused.
#include "storage/text/text_codec.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = assay::fuzz::AsText(data, size);
  (void)assay::storage::DecompressText(input, 1 << 20);
  (void)assay::storage::DecompressTokenIds(input, 1 << 20);
  return 0;
}
