// A worker that generates nothing: it speaks the protocol and answers with samples made beforehand.
#pragma once

#include <string>
#include <vector>

#include "assay/v1/worker_service.pb.h"

namespace assay::bench {

// Bodies of samples, packed as a worker packs them.
struct SampleBodies {
  std::vector<std::string> texts_zstd;
  std::vector<std::string> token_ids_zstd;
  int64_t num_tokens = 0;  // of each
};
// `num` texts of `text_bytes` and a quarter as many token ids.
SampleBodies MakeBodies(int num, size_t text_bytes);

v1::Hello MakeHello(const std::string& worker_id);
// One slot that runs, with so many free lanes.
v1::Heartbeat MakeHeartbeat(int num_free_lanes);
v1::Sample MakeSample(const v1::Grant& grant, const v1::Unit& unit, const SampleBodies& bodies,
                      size_t which);

}  // namespace assay::bench
