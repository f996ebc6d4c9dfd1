// The limits of what may come over the wire. Everything else refuses with INVALID_ARGUMENT naming
// the field, its value and the limit.
#pragma once

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "assay/v1/fleet_service.pb.h"
#include "assay/v1/results_service.pb.h"
#include "assay/v1/sweep_service.pb.h"
#include "assay/v1/worker_service.pb.h"

namespace assay::coordinator {

// Rises with each change that one side must know of the other. Workers of this revision and of the
// one before are served, so that a fleet is upgraded worker by worker, coordinator first.
//   1  the first
//   2  Welcome says the revision; memory_bytes of a slot decides what it is given
inline constexpr int32_t kProtocolRevision = 2;
inline constexpr int32_t kOldestProtocolRevision = kProtocolRevision - 1;

inline constexpr int kMaxMessageBytes = 16 << 20;  // of one gRPC message
inline constexpr int kMaxSamplesPerReport = 32;
inline constexpr size_t kMaxReportBytes = 1 << 20;
inline constexpr int kMaxSlots = 256;
inline constexpr int kMaxLeasesPerWorker = 16384;
inline constexpr size_t kMaxMessageText = 4096;  // longer error texts are cut, not refused
inline constexpr size_t kMaxChunkBytes = 1 << 20;

// 1 to 64 of [A-Za-z0-9._-]: what names a worker in logs, events and file names.
absl::Status CheckWorkerName(const char* field, const std::string& name);

absl::Status CheckHello(const v1::Hello& hello);
absl::Status CheckHeartbeat(const v1::Heartbeat& heartbeat);
absl::Status CheckReport(const v1::ReportSamplesRequest& request);
absl::Status CheckCompleteJob(const v1::CompleteJobRequest& request);
absl::Status CheckRequestId(const std::string& request_id);
absl::Status CheckSweepId(const std::string& sweep_id);
absl::Status CheckSpec(const std::string& yaml, const std::string& name);

}  // namespace assay::coordinator
