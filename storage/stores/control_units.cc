// Grants and their ends.
#include <algorithm>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

namespace {

// As the attempt table spells it.
const char* Name(AttemptEnd end) {
  switch (end) {
    case AttemptEnd::kExpired:
      return "expired";
    case AttemptEnd::kFailed:
      return "failed";
    case AttemptEnd::kInfrastructure:
      return "infrastructure";
    case AttemptEnd::kWorkerLost:
      return "worker_lost";
    case AttemptEnd::kRevoked:
      return "revoked";
    case AttemptEnd::kReturned:
      return "returned";
    case AttemptEnd::kFenced:
      return "fenced";
  }
  return "";
}

std::string Describe(const UnitId& unit) {
  return fmt::format("unit (cell {}, item {}, repeat {})", unit.cell_id, unit.item_index,
                     unit.repeat);
}

absl::StatusOr<int64_t> LeaseRowId(Connection* db, const std::string& lease_id) {
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         db->Prepare("SELECT id FROM lease WHERE public_id = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(lease_id).Step());
  if (!found) return NotFound("there is no lease '{}'", lease_id);
  int64_t id = 0;
  Row(statement).Read(&id);
  return id;
}

absl::StatusOr<std::vector<UnitId>> ReadUnits(Statement* statement) {
  std::vector<UnitId> units;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement->Step());
    if (!more) break;
    UnitId& unit = units.emplace_back();
    Row(*statement).Read(&unit.cell_id, &unit.item_index, &unit.repeat);
  }
  std::ranges::sort(units);  // RETURNING promises no order
  return units;
}

// Writes the attempt of a unit under the lease; no row when the lease does not hold it now.
absl::Status InsertAttempt(Connection* db, int64_t lease_row_id, const UnitId& unit, AttemptEnd end,
                           const std::string& message, int64_t time_us) {
  return db->Run(
      "INSERT INTO attempt(cell_id, item_index, repeat, epoch, lease_id, outcome, message,"
      " ended_time_us)"
      " SELECT cell_id, item_index, repeat, epoch, lease_id, ?5, ?6, ?7 FROM unit"
      "  WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3 AND lease_id = ?4 AND state = 2",
      unit.cell_id, unit.item_index, unit.repeat, lease_row_id, Name(end), message, time_us);
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> ControlStore::GrantUnits(const LeaseRecord& lease,
                                                              int64_t provenance_id,
                                                              std::span<const UnitId> units) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO lease(public_id, cell_id, worker_id, incarnation, slot_index,"
              " provenance_id, granted_time_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
              lease.lease_id, lease.cell_id, lease.worker_id, lease.incarnation, lease.slot_index,
              provenance_id, lease.granted_time_us));
  const int64_t lease_row_id = db->last_insert_id();
  ASSAY_ASSIGN_OR_RETURN(
      Statement grant,
      db->Prepare("INSERT INTO unit(cell_id, item_index, repeat, state, epoch, num_grants,"
                  " num_failures, lease_id) VALUES(?1, ?2, ?3, 2, 1, 1, 0, ?4)"
                  " ON CONFLICT(cell_id, item_index, repeat) DO UPDATE"
                  " SET state = 2, epoch = epoch + 1, num_grants = num_grants + 1,"
                  "     lease_id = excluded.lease_id"
                  " WHERE state = 1 RETURNING epoch"));
  std::vector<int64_t> epochs;
  epochs.reserve(units.size());
  for (const UnitId& unit : units) {
    ASSAY_CHECK(unit.cell_id == lease.cell_id, "{} is not of the lease's cell {}", Describe(unit),
                lease.cell_id);
    grant.Bind(unit.cell_id, unit.item_index, unit.repeat, lease_row_id);
    ASSAY_ASSIGN_OR_RETURN(const bool granted, grant.Step());
    if (!granted) return FailedPrecondition("{} is not queued", Describe(unit));
    Row(grant).Read(&epochs.emplace_back());
  }
  return epochs;
}

absl::StatusOr<std::vector<UnitId>> ControlStore::EndLease(const std::string& lease_id,
                                                           const std::string& reason,
                                                           AttemptEnd end, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(const int64_t lease_row_id, LeaseRowId(db, lease_id));
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE lease SET ended_time_us = ?2, end_reason = ?3"
              " WHERE id = ?1 AND ended_time_us IS NULL",
              lease_row_id, time_us, reason));
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO attempt(cell_id, item_index, repeat, epoch, lease_id, outcome, message,"
              " ended_time_us)"
              " SELECT cell_id, item_index, repeat, epoch, lease_id, ?2, ?3, ?4 FROM unit"
              "  WHERE lease_id = ?1 AND state = 2",
              lease_row_id, Name(end), reason, time_us));
  ASSAY_ASSIGN_OR_RETURN(Statement release,
                         db->Prepare("UPDATE unit SET state = 1 WHERE lease_id = ?1 AND state = 2"
                                     " RETURNING cell_id, item_index, repeat"));
  return ReadUnits(&release.Bind(lease_row_id));
}

absl::Status ControlStore::ReleaseUnits(const std::string& lease_id, std::span<const UnitId> units,
                                        AttemptEnd end, const std::string& message,
                                        int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(const int64_t lease_row_id, LeaseRowId(db, lease_id));
  for (const UnitId& unit : units) {
    ASSAY_RETURN_IF_ERROR(InsertAttempt(db, lease_row_id, unit, end, message, time_us));
    ASSAY_RETURN_IF_ERROR(
        db->Run("UPDATE unit SET state = 1 WHERE cell_id = ?1 AND item_index = ?2"
                " AND repeat = ?3 AND lease_id = ?4 AND state = 2",
                unit.cell_id, unit.item_index, unit.repeat, lease_row_id));
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> ControlStore::RecordUnitFailure(const std::string& lease_id,
                                                        const UnitId& unit, int64_t epoch,
                                                        const std::string& message,
                                                        bool infrastructure, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(
      Statement find, db->Prepare("SELECT l.id FROM unit AS u JOIN lease AS l ON l.id = u.lease_id"
                                  " WHERE u.cell_id = ?1 AND u.item_index = ?2 AND u.repeat = ?3"
                                  "   AND u.epoch = ?4 AND u.state = 2 AND l.public_id = ?5"));
  find.Bind(unit.cell_id, unit.item_index, unit.repeat, epoch, lease_id);
  ASSAY_ASSIGN_OR_RETURN(const bool current, find.Step());
  if (!current) {
    return FailedPrecondition("{}: lease '{}' does not hold it under epoch {} any more",
                              Describe(unit), lease_id, epoch);
  }
  int64_t lease_row_id = 0;
  Row(find).Read(&lease_row_id);
  find.Reset();

  const AttemptEnd end = infrastructure ? AttemptEnd::kInfrastructure : AttemptEnd::kFailed;
  ASSAY_RETURN_IF_ERROR(InsertAttempt(db, lease_row_id, unit, end, message, time_us));
  // The runner of one incarnation may fail a unit over and over for a reason of its machine: only
  // distinct ones count.
  ASSAY_ASSIGN_OR_RETURN(
      Statement update,
      db->Prepare("UPDATE unit SET state = 1, num_failures ="
                  "   (SELECT count(DISTINCT l.worker_id || '/' || l.incarnation)"
                  "      FROM attempt AS a JOIN lease AS l ON l.id = a.lease_id"
                  "     WHERE a.cell_id = ?1 AND a.item_index = ?2 AND a.repeat = ?3"
                  "       AND a.outcome = 'failed' AND a.forgiven = 0)"
                  " WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3"
                  " RETURNING num_failures"));
  ASSAY_ASSIGN_OR_RETURN(const bool updated,
                         update.Bind(unit.cell_id, unit.item_index, unit.repeat).Step());
  ASSAY_CHECK(updated, "{} vanished within its transaction", Describe(unit));
  int32_t num_failures = 0;
  Row(update).Read(&num_failures);
  return num_failures;
}

absl::Status ControlStore::QuarantineUnit(const UnitId& unit) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE unit SET state = 4"
              " WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3 AND state = 1",
              unit.cell_id, unit.item_index, unit.repeat));
  if (db->num_changes() == 0) {
    return FailedPrecondition("{} was never granted or is not queued", Describe(unit));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<UnitId>> ControlStore::RetryQuarantined(int64_t sweep_row_id) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  // The units that this sweep wants and that are quarantined, by the partial index.
  constexpr char kForgive[] =
      "UPDATE attempt SET forgiven = 1 WHERE id IN"
      " (SELECT a.id FROM unit AS u"
      "    JOIN sweep_cell AS sc ON sc.sweep_id = ?1 AND sc.cell_id = u.cell_id"
      "     AND u.item_index < sc.num_items AND u.repeat < sc.num_repeats"
      "    JOIN attempt AS a ON a.cell_id = u.cell_id AND a.item_index = u.item_index"
      "     AND a.repeat = u.repeat"
      "   WHERE u.state = 4)";
  ASSAY_RETURN_IF_ERROR(db->Run(kForgive, sweep_row_id));
  constexpr char kRequeue[] =
      "UPDATE unit SET state = 1, num_failures = 0"
      " WHERE state = 4 AND EXISTS"
      "  (SELECT 1 FROM sweep_cell AS sc WHERE sc.sweep_id = ?1 AND sc.cell_id = unit.cell_id"
      "      AND unit.item_index < sc.num_items AND unit.repeat < sc.num_repeats)"
      " RETURNING cell_id, item_index, repeat";
  ASSAY_ASSIGN_OR_RETURN(Statement requeue, db->Prepare(kRequeue));
  return ReadUnits(&requeue.Bind(sweep_row_id));
}

}  // namespace assay::storage
