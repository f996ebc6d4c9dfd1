// tokenizer.json as a stranger wrote it: the first line of the input is a text to encode with it.
#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  const std::string_view input = assay::fuzz::AsText(data, size);
  const size_t end = input.find('\n');
  if (end == std::string_view::npos) return 0;
  folder.Write("tokenizer.json", input.substr(end + 1));
  const auto tokenizer = assay::engine::Tokenizer::Load(folder.path());
  if (!tokenizer.ok()) return 0;
  const auto ids = (*tokenizer)->Encode(input.substr(0, end), true);
  (void)(*tokenizer)->Decode(ids, false);
  assay::engine::IncrementalDetokenizer detokenizer(tokenizer->get(), true);
  for (const int32_t id : ids) (void)detokenizer.Add(id);
  (void)detokenizer.Finish();
  return 0;
}
