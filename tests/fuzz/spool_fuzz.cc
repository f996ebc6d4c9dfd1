// A spool segment after a crash, or after somebody wrote into it: whole records or none.
#include "base/status.h"
#include "tests/fuzz/fuzz_folder.h"
#include "worker/agent/spool_segment.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  folder.Write("segment", assay::fuzz::AsText(data, size));
  const auto content = assay::worker::ReadSegment(folder.path() + "/segment");
  ASSAY_CHECK(content.ok(), "{}", assay::Message(content.status()));
  ASSAY_CHECK(content->num_good_bytes + content->num_torn_bytes == static_cast<int64_t>(size));
  return 0;
}
