// assay_quant.json as a stranger wrote it; what is accepted survives being written and read again.
#include "base/status.h"
#include "engine/quant/description.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto description = assay::engine::DescriptionFromJson(assay::fuzz::AsText(data, size));
  if (!description.ok()) return 0;
  const std::string json = assay::engine::ToJson(*description);
  const auto again = assay::engine::DescriptionFromJson(json);
  ASSAY_CHECK(again.ok(), "{}", assay::Message(again.status()));
  ASSAY_CHECK(assay::engine::ToJson(*again) == json);
  return 0;
}
