#include "coordinator/api/limits.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/status.h"
#include "base/version.h"
#include "coordinator/spec/sweep_spec.h"
#include "storage/text/text_codec.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxTextBytes = 512;
constexpr int64_t kMaxTokens = int64_t{1} << 40;
constexpr int64_t kBytesPerTokenId = 4;

absl::Status CheckSize(const char* field, size_t size, size_t limit) {
  if (size <= limit) return absl::OkStatus();
  return InvalidArgument("{} has {} bytes; at most {} are allowed", field, size, limit);
}

absl::Status CheckCount(const char* field, int count, int limit) {
  if (count <= limit) return absl::OkStatus();
  return InvalidArgument("{} has {} entries; at most {} are allowed", field, count, limit);
}

absl::Status CheckRange(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; it must be {} to {}", field, value, low, high);
}

absl::Status CheckRate(const char* field, double value) {
  if (std::isfinite(value) && value >= 0) return absl::OkStatus();
  return InvalidArgument("{} is {}; it must be a number from 0 on", field, value);
}

// Read from the frames' headers alone: what a worker packed is unpacked by whoever reads it. So a
// wrong answer passes, and a sample that nobody could read or that contradicts itself does not.
absl::Status CheckPacked(const v1::Sample& sample) {
  ASSAY_RETURN_IF_ERROR(Annotate(storage::UnpackedBytes(sample.text_zstd()).status(), "text_zstd"));
  const absl::StatusOr<int64_t> ids_bytes = storage::UnpackedBytes(sample.token_ids_zstd());
  ASSAY_RETURN_IF_ERROR(Annotate(ids_bytes.status(), "token_ids_zstd"));
  if (*ids_bytes % kBytesPerTokenId == 0 &&
      *ids_bytes / kBytesPerTokenId == sample.completion_tokens()) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "token_ids_zstd has {} bytes of ids for {} completion_tokens; an id has {}", *ids_bytes,
      sample.completion_tokens(), kBytesPerTokenId);
}

absl::Status CheckProvenance(const v1::Provenance& provenance) {
  for (const std::string* text :
       {&provenance.git_commit(), &provenance.assay_version(), &provenance.build_type(),
        &provenance.compiler(), &provenance.hostname(), &provenance.device(), &provenance.backend(),
        &provenance.engine_numerics_version(), &provenance.driver_versions()}) {
    ASSAY_RETURN_IF_ERROR(CheckSize("a field of provenance", text->size(), kMaxTextBytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckWorkerName(const char* field, const std::string& name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
  if (!name.empty() && name.size() <= kMaxNameBytes && plain) return absl::OkStatus();
  return InvalidArgument("{} must be 1 to {} of A-Z a-z 0-9 . _ -", field, kMaxNameBytes);
}

absl::Status CheckHello(const v1::Hello& hello) {
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("worker_id", hello.worker_id()));
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("incarnation", hello.incarnation()));
  if (hello.protocol_revision() < kOldestProtocolRevision ||
      hello.protocol_revision() > kProtocolRevision) {
    return FailedPrecondition(
        "worker {} {} speaks protocol revision {}, this coordinator ({}) serves {} to {}: update "
        "the {}",
        hello.worker_id(), hello.version().substr(0, kMaxNameBytes), hello.protocol_revision(),
        Version(), kOldestProtocolRevision, kProtocolRevision,
        hello.protocol_revision() < kOldestProtocolRevision ? "worker" : "coordinator");
  }
  ASSAY_RETURN_IF_ERROR(CheckSize("version", hello.version().size(), kMaxNameBytes));
  ASSAY_RETURN_IF_ERROR(CheckCount("capabilities", hello.capabilities_size(), 64));
  for (const std::string& capability : hello.capabilities()) {
    ASSAY_RETURN_IF_ERROR(CheckSize("a capability", capability.size(), kMaxNameBytes));
  }
  ASSAY_RETURN_IF_ERROR(CheckProvenance(hello.provenance()));
  if (hello.slots_size() == 0) return InvalidArgument("slots is empty: a worker has at least one");
  ASSAY_RETURN_IF_ERROR(CheckCount("slots", hello.slots_size(), kMaxSlots));
  std::set<int32_t> seen;
  for (const v1::Slot& slot : hello.slots()) {
    ASSAY_RETURN_IF_ERROR(CheckRange("slot.index", slot.index(), 0, hello.slots_size() - 1));
    if (!seen.insert(slot.index()).second) {
      return InvalidArgument("slot.index {} occurs twice", slot.index());
    }
    ASSAY_RETURN_IF_ERROR(
        CheckRange("slot.tensor_parallel_size", slot.tensor_parallel_size(), 0, 1024));
    ASSAY_RETURN_IF_ERROR(CheckRange("slot.memory_bytes", slot.memory_bytes(), 0, kMaxTokens << 8));
    ASSAY_RETURN_IF_ERROR(CheckSize("slot.device", slot.device().size(), kMaxTextBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckHeartbeat(const v1::Heartbeat& heartbeat) {
  ASSAY_RETURN_IF_ERROR(CheckCount("slots", heartbeat.slots_size(), kMaxSlots));
  for (const v1::SlotState& slot : heartbeat.slots()) {
    ASSAY_RETURN_IF_ERROR(CheckRange("slot.index", slot.index(), 0, kMaxSlots - 1));
    ASSAY_RETURN_IF_ERROR(
        CheckSize("slot.loaded_artifact_key", slot.loaded_artifact_key().size(), kMaxTextBytes));
    ASSAY_RETURN_IF_ERROR(
        CheckRange("slot.num_running_units", slot.num_running_units(), 0, 1 << 20));
    ASSAY_RETURN_IF_ERROR(
        CheckRange("slot.num_waiting_units", slot.num_waiting_units(), 0, 1 << 20));
    ASSAY_RETURN_IF_ERROR(CheckRange("slot.num_free_lanes", slot.num_free_lanes(), 0, 1 << 20));
    ASSAY_RETURN_IF_ERROR(CheckRate("slot.tokens_per_s", slot.tokens_per_s()));
    ASSAY_RETURN_IF_ERROR(
        CheckRange("slot.memory_used_bytes", slot.memory_used_bytes(), 0, kMaxTokens << 8));
  }
  ASSAY_RETURN_IF_ERROR(
      CheckRange("num_spooled_samples", heartbeat.num_spooled_samples(), 0, 1 << 30));
  ASSAY_RETURN_IF_ERROR(CheckCount("leases", heartbeat.leases_size(), kMaxLeasesPerWorker));
  for (const v1::LeaseProgress& lease : heartbeat.leases()) {
    ASSAY_RETURN_IF_ERROR(CheckSize("lease_id", lease.lease_id().size(), kMaxNameBytes));
    ASSAY_RETURN_IF_ERROR(CheckRange("tokens_generated", lease.tokens_generated(), 0, kMaxTokens));
  }
  ASSAY_RETURN_IF_ERROR(CheckCount("failures", heartbeat.failures_size(), kMaxLeasesPerWorker));
  for (const v1::UnitFailure& failure : heartbeat.failures()) {
    ASSAY_RETURN_IF_ERROR(CheckSize("lease_id", failure.lease_id().size(), kMaxNameBytes));
    ASSAY_RETURN_IF_ERROR(CheckRange("item_index", failure.unit().item_index(), 0, 1 << 30));
    ASSAY_RETURN_IF_ERROR(CheckRange("repeat", failure.unit().repeat(), 0, 1 << 30));
  }
  return absl::OkStatus();
}

absl::Status CheckReport(const v1::ReportSamplesRequest& request) {
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("worker_id", request.worker_id()));
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("incarnation", request.incarnation()));
  ASSAY_RETURN_IF_ERROR(CheckCount("samples", request.samples_size(), kMaxSamplesPerReport));
  // One sample may be larger than the rest of a batch: it then travels alone.
  if (request.samples_size() > 1) {
    ASSAY_RETURN_IF_ERROR(CheckSize("a report", request.ByteSizeLong(), kMaxReportBytes));
  }
  for (const v1::Sample& sample : request.samples()) {
    ASSAY_RETURN_IF_ERROR(CheckRange("item_index", sample.unit().item_index(), 0, 1 << 30));
    ASSAY_RETURN_IF_ERROR(CheckRange("repeat", sample.unit().repeat(), 0, 1 << 30));
    ASSAY_RETURN_IF_ERROR(CheckRange("epoch", sample.epoch(), 1, int64_t{1} << 62));
    ASSAY_RETURN_IF_ERROR(
        CheckRange("finished_time_us", sample.finished_time_us(), 0, int64_t{1} << 62));
    ASSAY_RETURN_IF_ERROR(CheckPacked(sample));
  }
  return absl::OkStatus();
}

absl::Status CheckCompleteJob(const v1::CompleteJobRequest& request) {
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("worker_id", request.worker_id()));
  ASSAY_RETURN_IF_ERROR(CheckWorkerName("incarnation", request.incarnation()));
  ASSAY_RETURN_IF_ERROR(CheckRange("duration_us", request.duration_us(), 0, int64_t{1} << 62));
  ASSAY_RETURN_IF_ERROR(CheckSize("artifact_key", request.artifact_key().size(), kMaxNameBytes));
  return CheckSize("artifact_manifest_sha256", request.artifact_manifest_sha256().size(),
                   kMaxNameBytes);
}

absl::Status CheckRequestId(const std::string& request_id) {
  return CheckSize("request_id", request_id.size(), kMaxNameBytes * 2);
}

absl::Status CheckSweepId(const std::string& sweep_id) {
  if (sweep_id.empty()) return InvalidArgument("sweep_id is empty: name a sweep");
  return CheckSize("sweep_id", sweep_id.size(), kMaxNameBytes);
}

absl::Status CheckSpec(const std::string& yaml, const std::string& name) {
  ASSAY_RETURN_IF_ERROR(CheckSize("spec_name", name.size(), 4096));
  return CheckSize("spec_yaml", yaml.size(), static_cast<size_t>(kMaxSpecBytes));
}

}  // namespace assay::coordinator
