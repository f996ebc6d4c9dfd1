// Wire messages of workers to and from the control plane's values. Validation is in limits.h; these
// take what has passed it.
#pragma once

#include <absl/status/statusor.h>

#include "assay/v1/worker_service.pb.h"
#include "coordinator/control/control_plane.h"
#include "coordinator/control/messages.h"

namespace assay::coordinator {

HelloCommand FromProto(const v1::Hello& hello);
HeartbeatCommand FromProto(const v1::Heartbeat& heartbeat, const std::string& worker_id,
                           const std::string& incarnation);
// INVALID_ARGUMENT naming the unit and the field.
absl::StatusOr<ReportCommand> FromProto(const v1::ReportSamplesRequest& request);
JobReport FromProto(const v1::CompleteJobRequest& request);

// `options` fill the Welcome.
v1::SyncResponse ToProto(const OutgoingMessage& message, const ControlPlane::Options& options);

v1::QuantMethod ToProto(const storage::MethodRecord& method);
v1::Provenance ToProto(const storage::ProvenanceRecord& provenance);
v1::Grade ToProto(const storage::GradeRecord& grade);

}  // namespace assay::coordinator
