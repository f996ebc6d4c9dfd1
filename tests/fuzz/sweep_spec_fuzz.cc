// A sweep spec as a stranger wrote it; what is accepted prints to its own fixed point.
#include "base/status.h"
#include "coordinator/spec/sweep_spec.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto spec =
      assay::coordinator::ParseSweepSpec(std::string(assay::fuzz::AsText(data, size)), "fuzz.yaml");
  if (!spec.ok()) return 0;
  const std::string printed = assay::coordinator::PrintSweepSpec(*spec);
  const auto again = assay::coordinator::ParseSweepSpec(printed, "printed.yaml");
  ASSAY_CHECK(again.ok(), "{}\n{}", assay::Message(again.status()), printed);
  ASSAY_CHECK(assay::coordinator::PrintSweepSpec(*again) == printed);
  return 0;
}
