// Any bytes as text: encoding and decoding give the same ids again, and valid text comes back.
#include <memory>

#include "base/status.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/testing/paths.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<assay::engine::Tokenizer> tokenizer =
      assay::engine::Tokenizer::Load(assay::testing::SourcePath("examples/models/tiny-qwen2-1m"))
          .value();
  const auto ids = tokenizer->Encode(assay::fuzz::AsText(data, size), false);
  const std::string text = tokenizer->Decode(ids, false);
  std::string streamed;
  assay::engine::IncrementalDetokenizer detokenizer(tokenizer.get(), false);
  for (const int32_t id : ids) streamed += detokenizer.Add(id);
  streamed += detokenizer.Finish();
  ASSAY_CHECK(streamed == text);
  return 0;
}
