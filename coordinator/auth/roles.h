// What each call needs: one table, so that nothing is open by oversight.
//
//   viewer     reads: plans, sweeps, results, samples, queries, the fleet
//   submitter  and submits; cancels, pauses, resumes and retries what is her own
//   admin      and does so with anybody's, drains workers, requeues samples, gives out tokens
//   worker     no person: a certificate that names it; calls WorkerService and nothing else
//
// A new method of a service of people that has no row needs an admin; a new service is refused.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

namespace assay::coordinator {

// In the order of what they may do; stored as numbers.
enum class Role : int32_t { kNone = 0, kViewer = 1, kSubmitter = 2, kAdmin = 3 };

const char* NameOf(Role role);
// INVALID_ARGUMENT listing the roles.
absl::StatusOr<Role> ParseRole(const std::string& name);

struct Access {
  enum class Who { kAnybody, kWorker, kPerson, kNobody };
  Who who = Who::kNobody;
  Role role = Role::kNone;  // of a person: at least this
};

// `path` is gRPC's: "/assay.v1.SweepService/GetSweep".
Access AccessFor(const std::string& path);
// Whether the table names this very method.
bool HasAccessRow(const std::string& path);

}  // namespace assay::coordinator
