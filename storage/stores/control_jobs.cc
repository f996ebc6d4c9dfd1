// Jobs, artifacts' states, events, workers and remembered answers.
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"

namespace assay::storage {

using sqlite::Blob;
using sqlite::Connection;
using sqlite::NullIfZero;
using sqlite::Row;
using sqlite::Statement;

namespace {

// After an UPDATE guarded by the job's epoch.
absl::Status StaleUnlessChanged(const Connection& db, int64_t job_id, int64_t epoch) {
  if (db.num_changes() > 0) return absl::OkStatus();
  return FailedPrecondition("job {} is not held under epoch {} any more", job_id, epoch);
}

std::optional<std::string> NullIfEmpty(const std::string& text) {
  return text.empty() ? std::nullopt : std::optional<std::string>(text);
}

}  // namespace

absl::StatusOr<JobRecord> ControlStore::LoadJob(int64_t job_id) {
  constexpr char kSql[] =
      "SELECT id, kind, artifact_id, state, epoch, num_failures, error, worker_id, incarnation"
      "  FROM job WHERE id = ?1";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, connection_->Prepare(kSql));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(job_id).Step());
  if (!found) return NotFound("there is no job {}", job_id);
  JobRecord job;
  Row(statement).Read(&job.id, &job.kind, &job.artifact_id, &job.state, &job.epoch,
                      &job.num_failures, &job.error, &job.worker_id, &job.incarnation);
  return job;
}

absl::StatusOr<JobRecord> ControlStore::InsertJob(JobKind kind, int64_t artifact_id,
                                                  int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO job(kind, artifact_id, state, epoch, num_failures, error, worker_id,"
              "   incarnation, created_time_us) VALUES(?1, ?2, 1, 0, 0, '', '', '', ?3)"
              " ON CONFLICT(artifact_id, kind) DO NOTHING",
              kind, artifact_id, time_us));
  ASSAY_ASSIGN_OR_RETURN(Statement find,
                         db->Prepare("SELECT id FROM job WHERE artifact_id = ?1 AND kind = ?2"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, find.Bind(artifact_id, kind).Step());
  ASSAY_CHECK(found, "the job of artifact {} vanished within its transaction", artifact_id);
  int64_t job_id = 0;
  Row(find).Read(&job_id);
  return LoadJob(job_id);
}

absl::StatusOr<int64_t> ControlStore::GrantJob(int64_t job_id, const std::string& worker_id,
                                               const std::string& incarnation) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(
      Statement grant,
      db->Prepare("UPDATE job SET state = 2, epoch = epoch + 1, worker_id = ?2, incarnation = ?3"
                  " WHERE id = ?1 AND state = 1 RETURNING epoch"));
  ASSAY_ASSIGN_OR_RETURN(const bool granted, grant.Bind(job_id, worker_id, incarnation).Step());
  if (!granted) return FailedPrecondition("job {} is not queued", job_id);
  int64_t epoch = 0;
  Row(grant).Read(&epoch);
  return epoch;
}

absl::Status ControlStore::CompleteJob(int64_t job_id, int64_t epoch, int64_t duration_us,
                                       int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  // Queued under the same epoch is a lease that lapsed without another grant: the work counts.
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE job SET state = 3, error = '', duration_us = ?3, finished_time_us = ?4"
              " WHERE id = ?1 AND epoch = ?2 AND state IN (1, 2)",
              job_id, epoch, duration_us, time_us));
  return StaleUnlessChanged(*db, job_id, epoch);
}

absl::StatusOr<int32_t> ControlStore::FailJob(int64_t job_id, int64_t epoch,
                                              const std::string& error, bool infrastructure,
                                              bool give_up, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(
      Statement fail,
      db->Prepare("UPDATE job SET state = CASE WHEN ?5 THEN 4 ELSE 1 END, error = ?3,"
                  "   num_failures = num_failures + ?4,"
                  "   finished_time_us = CASE WHEN ?5 THEN ?6 END"
                  " WHERE id = ?1 AND epoch = ?2 AND state = 2 RETURNING num_failures"));
  ASSAY_ASSIGN_OR_RETURN(
      const bool failed,
      fail.Bind(job_id, epoch, error, infrastructure ? 0 : 1, give_up, time_us).Step());
  if (!failed) {
    return FailedPrecondition("job {} is not held under epoch {} any more", job_id, epoch);
  }
  int32_t num_failures = 0;
  Row(fail).Read(&num_failures);
  return num_failures;
}

absl::Status ControlStore::ReleaseJob(int64_t job_id, int64_t epoch) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(db->Run(
      "UPDATE job SET state = 1 WHERE id = ?1 AND epoch = ?2 AND state = 2", job_id, epoch));
  return StaleUnlessChanged(*db, job_id, epoch);
}

absl::Status ControlStore::RetryJob(int64_t job_id) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  // The epoch moves too: what an earlier attempt still reports is stale.
  return db->Run(
      "UPDATE job SET state = 1, epoch = epoch + 1, num_failures = 0, error = '',"
      "   finished_time_us = NULL, duration_us = NULL"
      " WHERE id = ?1 AND state IN (3, 4)",
      job_id);
}

absl::Status ControlStore::SetArtifactState(int64_t artifact_id, ArtifactState state,
                                            const std::string& manifest_sha256) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE artifact SET state = ?2, manifest_sha256 = ?3 WHERE id = ?1", artifact_id,
              state, manifest_sha256));
  if (db->num_changes() == 0) return NotFound("there is no artifact {}", artifact_id);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ControlStore::InsertEvent(const EventRecord& event) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO event(time_us, kind, sweep_id, cell_id, worker_id, detail)"
              " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
              event.time_us, event.kind, NullIfEmpty(event.sweep_id), NullIfZero{event.cell_id},
              NullIfEmpty(event.worker_id), event.detail_json));
  return db->last_insert_id();
}

absl::Status ControlStore::UpsertWorker(const WorkerRecord& worker) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return db->Run(
      "INSERT INTO worker(worker_id, incarnation, version, provenance_id, first_seen_time_us,"
      "   last_seen_time_us, draining) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
      " ON CONFLICT(worker_id) DO UPDATE SET incarnation = excluded.incarnation,"
      "   version = excluded.version, provenance_id = excluded.provenance_id,"
      "   last_seen_time_us = excluded.last_seen_time_us",
      worker.worker_id, worker.incarnation, worker.version, NullIfZero{worker.provenance_id},
      worker.first_seen_time_us, worker.last_seen_time_us, worker.draining);
}

absl::Status ControlStore::SetWorkerDrain(const std::string& worker_id, bool draining) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE worker SET draining = ?2 WHERE worker_id = ?1", worker_id, draining));
  if (db->num_changes() == 0) return NotFound("there is no worker '{}'", worker_id);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<std::string>> ControlStore::FindAnswer(const std::string& method,
                                                                    const std::string& request_id) {
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      connection_->Prepare("SELECT answer FROM answer WHERE method = ?1 AND request_id = ?2"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(method, request_id).Step());
  if (!found) return std::nullopt;
  std::string answer;
  Row(statement).Read(&answer);
  return answer;
}

absl::Status ControlStore::SaveAnswer(const std::string& method, const std::string& request_id,
                                      std::string_view answer, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  return db->Run("INSERT INTO answer(method, request_id, answer, time_us) VALUES(?1, ?2, ?3, ?4)",
                 method, request_id, Blob{answer}, time_us);
}

}  // namespace assay::storage
