// What the control plane says to workers, before it becomes wire messages. A message leaves only
// after the transaction that decided it has committed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "storage/stores/records.h"

namespace assay::coordinator {

// What a runner needs to know of a cell, and people want to read of it. Shared and immutable.
struct CellContext {
  storage::CellRecord cell;
  storage::ModelRecord model;
  storage::BenchmarkRecord benchmark;
  std::optional<storage::ArtifactRecord> artifact;  // empty for the model as it is
};

struct WelcomeMessage {
  int32_t protocol_revision = 0;  // of this conversation
};

struct UnitGrant {
  storage::UnitId unit;
  int64_t epoch = 0;
  uint64_t seed = 0;
  std::string user_text;
  std::string gold;
  int64_t expected_tokens = 0;
};

struct GrantMessage {
  std::string lease_id;
  int32_t slot_index = 0;
  std::shared_ptr<const CellContext> cell;
  std::vector<UnitGrant> units;
};

struct JobMessage {
  int64_t job_id = 0;
  int64_t epoch = 0;
  int32_t slot_index = 0;
  std::shared_ptr<const CellContext> cell;  // one of those that wait for the artifact
  std::string calibration_jsonl;
};

struct RevokeMessage {
  std::string lease_id;
  std::vector<storage::UnitId> units;  // empty: all of the lease
};

struct AcknowledgeMessage {
  int64_t sequence = 0;
};

struct DrainMessage {};

struct ShutdownMessage {
  std::string reason;
};

struct OutgoingMessage {
  std::string worker_id;
  std::string incarnation;
  std::variant<WelcomeMessage, GrantMessage, JobMessage, RevokeMessage, AcknowledgeMessage,
               DrainMessage, ShutdownMessage>
      body;
};

}  // namespace assay::coordinator
