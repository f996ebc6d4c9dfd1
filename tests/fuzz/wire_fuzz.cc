// What a runner or a grader gone wrong writes into its pipe.
#include <unistd.h>

#include "assay/v1/runner.pb.h"
#include "base/status.h"
#include "tests/fuzz/fuzz_folder.h"
#include "worker/wire/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 60'000) return 0;  // what a pipe takes without a reader
  int ends[2];
  ASSAY_CHECK(::pipe(ends) == 0);
  ASSAY_CHECK(::write(ends[1], data, size) == static_cast<ssize_t>(size));
  ::close(ends[1]);
  while (true) {
    assay::v1::RunnerEvent event;
    const auto more = assay::worker::ReadFrame(ends[0], &event);
    if (!more.ok() || !*more) break;
  }
  ::close(ends[0]);
  return 0;
}
