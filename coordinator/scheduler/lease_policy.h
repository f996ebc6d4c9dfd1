// How many units one grant holds, and what keeps a lease alive. Pure functions.
#pragma once

#include <absl/time/time.h>

#include <cstdint>

namespace assay::coordinator {

inline constexpr int32_t kChunkUnits = 16;  // what a slot may hold beyond its lanes
inline constexpr int32_t kMaxLeaseUnits = 64;
inline constexpr int32_t kMinTailUnits = 4;  // smallest lease near a cell's end, suspects aside

// A model may take this long to load before a lease without tokens is given up.
inline constexpr absl::Duration kLongestLoad = absl::Minutes(30);

// A job whose slot no longer says that it quantizes may still be uploading its artifact.
inline constexpr absl::Duration kLongestUpload = absl::Minutes(10);

// What a slot may still be given: its lanes (busy and free, as it reported them; at least a chunk,
// for a slot that has loaded nothing does not know) plus one chunk, less what it holds.
int32_t Allowance(int32_t num_lanes, int32_t num_committed);

// The size of the next lease; 0 says wait for more room. A slot gets at most half of its share of
// what is queued, so that slots of different speed end together; a lease smaller than a chunk is
// made only at a cell's end, because every lease costs a transaction and a message.
int32_t LeaseSize(int32_t allowance, int64_t num_queued, int32_t num_slots_on_cell);

}  // namespace assay::coordinator
