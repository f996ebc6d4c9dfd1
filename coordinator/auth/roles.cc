#include "coordinator/auth/roles.h"

#include <map>

#include "base/status.h"

namespace assay::coordinator {
namespace {

const std::map<std::string, Role>& Rows() {
  static const std::map<std::string, Role> rows = {
      {"/assay.v1.SweepService/PlanSweep", Role::kViewer},
      {"/assay.v1.SweepService/SubmitSweep", Role::kSubmitter},
      {"/assay.v1.SweepService/GetSweep", Role::kViewer},
      {"/assay.v1.SweepService/ListSweeps", Role::kViewer},
      {"/assay.v1.SweepService/WatchSweep", Role::kViewer},
      {"/assay.v1.SweepService/CancelSweep", Role::kSubmitter},
      {"/assay.v1.SweepService/PauseSweep", Role::kSubmitter},
      {"/assay.v1.SweepService/ResumeSweep", Role::kSubmitter},
      {"/assay.v1.SweepService/RetrySweep", Role::kSubmitter},
      {"/assay.v1.ResultsService/GetResults", Role::kViewer},
      {"/assay.v1.ResultsService/ListSamples", Role::kViewer},
      {"/assay.v1.ResultsService/GetSample", Role::kViewer},
      {"/assay.v1.ResultsService/CompareCells", Role::kViewer},
      {"/assay.v1.ResultsService/RunQuery", Role::kViewer},
      // A sample may be of many sweeps, so it is nobody's own.
      {"/assay.v1.ResultsService/RequeueSample", Role::kAdmin},
      {"/assay.v1.FleetService/ListWorkers", Role::kViewer},
      {"/assay.v1.FleetService/WatchFleet", Role::kViewer},
      {"/assay.v1.FleetService/WatchEvents", Role::kViewer},
      {"/assay.v1.FleetService/DrainWorker", Role::kAdmin},
      {"/assay.v1.FleetService/BackupDatabase", Role::kAdmin},
      {"/assay.v1.TokenService/CreateToken", Role::kAdmin},
      {"/assay.v1.TokenService/ListTokens", Role::kAdmin},
      {"/assay.v1.TokenService/RevokeToken", Role::kAdmin},
  };
  return rows;
}

}  // namespace

const char* NameOf(Role role) {
  switch (role) {
    case Role::kViewer:
      return "viewer";
    case Role::kSubmitter:
      return "submitter";
    case Role::kAdmin:
      return "admin";
    case Role::kNone:
      break;
  }
  return "none";
}

absl::StatusOr<Role> ParseRole(const std::string& name) {
  for (const Role role : {Role::kViewer, Role::kSubmitter, Role::kAdmin}) {
    if (name == NameOf(role)) return role;
  }
  return InvalidArgument("role '{}' is none of viewer, submitter, admin", name);
}

Access AccessFor(const std::string& path) {
  const auto row = Rows().find(path);
  if (row != Rows().end()) return {Access::Who::kPerson, row->second};
  if (path.starts_with("/assay.v1.WorkerService/")) return {Access::Who::kWorker};
  if (path.starts_with("/assay.v1.")) return {Access::Who::kPerson, Role::kAdmin};
  // Says serving or not; a supervisor has no token.
  if (path.starts_with("/grpc.health.v1.Health/")) return {Access::Who::kAnybody};
  if (path.starts_with("/grpc.reflection.")) return {Access::Who::kPerson, Role::kViewer};
  return {Access::Who::kNobody};
}

bool HasAccessRow(const std::string& path) {
  return Rows().contains(path) || path.starts_with("/assay.v1.WorkerService/");
}

}  // namespace assay::coordinator
