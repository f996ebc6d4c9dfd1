// The database and the scheduler's memory against what the oracle knows.
#include <fmt/format.h>

#include <algorithm>

#include "base/status.h"
#include "storage/sqlite/statement.h"
#include "tests/simulation/oracle.h"
#include "tests/simulation/sim_disk.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {

using coordinator::Scheduler;
using coordinator::UnitStatus;
using storage::UnitId;
using storage::sqlite::Row;
using storage::sqlite::Statement;

// The database ----------------------------------------------------------------------------------

void Oracle::OnStart(const std::string& database, coordinator::ControlPlane& plane) {
  const SimDisk::Truce truce;
  database_ = database;
  auto reader = storage::sqlite::Connection::OpenReader(database);
  if (!reader.ok()) return Fail("no reader: " + Message(reader.status()));
  reader_ = *std::move(reader);

  // Of the lost batches, what is in the database did happen.
  const absl::StatusOr<Samples> stored = ReadSamples();
  if (!stored.ok()) return Fail("samples cannot be read: " + Message(stored.status()));
  for (const auto& [unit, sample] : *stored) {
    const auto known = samples_.find(unit);
    if (known != samples_.end() && known->second == sample) continue;
    const bool expected =
        std::ranges::find(uncertain_samples_, std::pair(unit, sample)) != uncertain_samples_.end();
    if (!expected) Fail(Name(unit) + " has a sample after a restart that nobody sent");
    samples_[unit] = sample;
  }
  for (const UnitId& unit : uncertain_requeues_) {
    if (stored->contains(unit)) continue;
    ForgetSample(unit);
  }
  CheckRows("after a restart");
  const auto before = holders_;
  ReadUnits();
  for (const auto& [unit, holder] : before) {
    const int64_t epoch = holders_[unit].epoch;
    if (epoch < holder.epoch || (epoch > holder.epoch && !uncertain_)) {
      Fail(fmt::format("{} had epoch {} before a restart and has {} now", Name(unit), holder.epoch,
                       epoch));
    }
  }
  ReadSweeps();
  uncertain_samples_.clear();
  uncertain_requeues_.clear();
  uncertain_ = false;

  // A restart lets every lease live for twice its time.
  const Instant now = events_->now();
  leases_.clear();
  for (const auto& [number, lease] : plane.scheduler().leases()) {
    const Instant until = now + 2 * options_.lease_ttl;
    leases_[lease.lease_id] = {lease.worker_id, lease.slot_index, now, now, until, until, 0};
  }
  CheckUnitsInMemory(plane.scheduler());
}

absl::StatusOr<Oracle::Samples> Oracle::ReadSamples(const UnitId* only) {
  std::string sql =
      "SELECT s.cell_id, s.item_index, s.repeat, s.epoch, l.public_id, s.seed,"
      "       s.completion_tokens, s.prompt_sha256, t.text, t.token_ids"
      "  FROM sample AS s JOIN lease AS l ON l.id = s.lease_id"
      "  JOIN sample_text AS t ON t.sample_id = s.id";
  if (only != nullptr) sql += " WHERE s.cell_id = ?1 AND s.item_index = ?2 AND s.repeat = ?3";
  ASSAY_ASSIGN_OR_RETURN(Statement statement, reader_->Prepare(sql));
  if (only != nullptr) statement.Bind(only->cell_id, only->item_index, only->repeat);
  Samples samples;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return samples;
    storage::SampleRecord record;
    Sample sample;
    Row(statement).Read(&record.unit.cell_id, &record.unit.item_index, &record.unit.repeat,
                        &sample.epoch, &sample.lease_id, &record.seed, &record.completion_tokens,
                        &record.prompt_sha256, &record.text_zstd, &record.token_ids_zstd);
    sample.fingerprint = Workload::Fingerprint(record);
    if (!samples.emplace(record.unit, std::move(sample)).second) {
      return Internal("{} has two samples", Name(record.unit));
    }
  }
}

void Oracle::CheckAccepted() {
  ++num_checks_;
  for (const UnitId& unit : batch_accepted_) {
    const absl::StatusOr<Samples> stored = ReadSamples(&unit);
    if (!stored.ok()) return Fail("a sample cannot be read: " + Message(stored.status()));
    const auto row = stored->find(unit);
    if (row == stored->end() || !(row->second == samples_.at(unit))) {
      return Fail(Name(unit) + ": its sample was accepted and is not stored as it was sent");
    }
    const auto truth = truth_.find(unit);
    if (truth == truth_.end() || row->second.fingerprint != truth->second) {
      return Fail(Name(unit) + ": what is stored is not its answer");
    }
  }
  CheckCount("samples, unlike those accepted", "SELECT count(*) FROM sample", num_samples());
}

void Oracle::CheckRows(const std::string& where) {
  ++num_checks_;
  const absl::StatusOr<Samples> stored = ReadSamples();
  if (!stored.ok()) return Fail("samples cannot be read: " + Message(stored.status()));
  for (const auto& [unit, fingerprint] : acknowledged_) {
    const auto it = stored->find(unit);
    if (it == stored->end()) {
      return Fail(Name(unit) + ": its acknowledged sample is lost " + where);
    }
    if (it->second.fingerprint != fingerprint) {
      return Fail(Name(unit) + ": its acknowledged sample is altered " + where);
    }
  }
  for (const auto& [unit, sample] : *stored) {
    const auto truth = truth_.find(unit);
    if (truth == truth_.end() || truth->second != sample.fingerprint) {
      return Fail(Name(unit) + ": what is stored is not its answer, " + where);
    }
    const auto known = samples_.find(unit);
    if (known == samples_.end() || !(known->second == sample)) {
      return Fail(Name(unit) + ": a sample is stored that was not accepted, " + where);
    }
  }
  if (stored->size() != samples_.size()) Fail("an accepted sample is not stored " + where);
}

void Oracle::ReadUnits() {
  holders_.clear();
  auto statement = reader_->Prepare(
      "SELECT u.cell_id, u.item_index, u.repeat, u.epoch, l.public_id FROM unit AS u"
      "  JOIN lease AS l ON l.id = u.lease_id ORDER BY 1, 2, 3");
  if (!statement.ok()) return Fail(Message(statement.status()));
  while (true) {
    const auto more = statement->Step();
    if (!more.ok()) return Fail(Message(more.status()));
    if (!*more) return;
    UnitId unit;
    Holder holder;
    Row(*statement)
        .Read(&unit.cell_id, &unit.item_index, &unit.repeat, &holder.epoch, &holder.lease_id);
    holders_[unit] = std::move(holder);
  }
}

void Oracle::ReadSweeps() {
  sweeps_changed_ = false;
  places_.clear();
  auto statement = reader_->Prepare(
      "SELECT sc.cell_id, sc.num_items, sc.num_repeats, s.state FROM sweep_cell AS sc"
      "  JOIN sweep AS s ON s.id = sc.sweep_id ORDER BY s.id, sc.position");
  if (!statement.ok()) return Fail(Message(statement.status()));
  while (true) {
    const auto more = statement->Step();
    if (!more.ok()) return Fail(Message(more.status()));
    if (!*more) return;
    int64_t cell_id = 0;
    int32_t state = 0;
    Place place;
    Row(*statement).Read(&cell_id, &place.num_items, &place.num_repeats, &state);
    place.cancelled = state == static_cast<int32_t>(storage::SweepState::kCancelled);
    place.paused = state == static_cast<int32_t>(storage::SweepState::kPaused);
    places_[cell_id].push_back(place);
  }
}

int64_t Oracle::AnySampleId(uint64_t choice) {
  const SimDisk::Truce truce;
  if (reader_ == nullptr || samples_.empty()) return 0;
  const auto id = reader_->QueryInteger(
      fmt::format("SELECT id FROM sample ORDER BY id LIMIT 1 OFFSET {}", choice % samples_.size()));
  return id.ok() ? *id : 0;
}

void Oracle::CheckCount(const char* what, const std::string& sql, int64_t expected) {
  const auto count = reader_->QueryInteger(sql);
  if (!count.ok()) return Fail(Message(count.status()));
  if (*count != expected) Fail(fmt::format("{}: {} rows", what, *count));
}

void Oracle::CheckEverything(coordinator::ControlPlane& plane) {
  const SimDisk::Truce truce;
  CheckRows("in the end");
  CheckUnitsInMemory(plane.scheduler());
  CheckCount("units whose state and sample disagree",
             "SELECT count(*) FROM unit AS u LEFT JOIN sample AS s ON s.cell_id = u.cell_id"
             "   AND s.item_index = u.item_index AND s.repeat = u.repeat"
             " WHERE (u.state = 3) <> (s.id IS NOT NULL) OR u.sample_id IS NOT s.id");
  CheckCount("units leased under a lease that has ended",
             "SELECT count(*) FROM unit AS u JOIN lease AS l ON l.id = u.lease_id"
             " WHERE u.state = 2 AND l.ended_time_us IS NOT NULL");
  CheckCount("open leases without units",
             "SELECT count(*) FROM lease AS l WHERE l.ended_time_us IS NULL AND NOT EXISTS"
             " (SELECT 1 FROM unit AS u WHERE u.lease_id = l.id AND u.state = 2)");
  CheckCount("sweeps that are done and lack samples",
             "SELECT count(*) FROM sweep AS s WHERE s.state = 4 AND"
             " (SELECT sum(num_items * num_repeats) FROM sweep_cell WHERE sweep_id = s.id) <>"
             " (SELECT count(*) FROM sweep_cell AS sc JOIN unit AS u ON u.cell_id = sc.cell_id"
             "    AND u.item_index < sc.num_items AND u.repeat < sc.num_repeats"
             "  WHERE sc.sweep_id = s.id AND u.state = 3)");
  CheckCount("samples graded otherwise than their unit says",
             "SELECT count(*) FROM unit AS u JOIN grade AS g ON g.sample_id = u.sample_id"
             " WHERE g.verdict <> u.verdict");
  if (const absl::Status whole = reader_->CheckIntegrity(/*full=*/true); !whole.ok()) {
    Fail(Message(whole));
  }
}

// The memory ------------------------------------------------------------------------------------

// The memory is the database's index: unit by unit the same.
void Oracle::CheckUnitsInMemory(const Scheduler& scheduler) {
  ++num_checks_;
  auto statement = reader_->Prepare(
      "SELECT u.cell_id, u.item_index, u.repeat, u.state, l.public_id FROM unit AS u"
      "  JOIN lease AS l ON l.id = u.lease_id ORDER BY 1, 2, 3");
  if (!statement.ok()) return Fail(Message(statement.status()));
  std::map<UnitId, std::pair<int32_t, std::string>> rows;
  while (true) {
    const auto more = statement->Step();
    if (!more.ok()) return Fail(Message(more.status()));
    if (!*more) break;
    UnitId unit;
    int32_t state = 0;
    std::string lease_id;
    Row(*statement).Read(&unit.cell_id, &unit.item_index, &unit.repeat, &state, &lease_id);
    rows[unit] = {state, std::move(lease_id)};
  }
  constexpr int32_t kStates[] = {1, 2, 3, 4};  // by UnitStatus
  for (const auto& [cell_id, cell] : scheduler.cells()) {
    for (int32_t index = 0; index < cell.units.num_units(); ++index) {
      const UnitId unit = {cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)};
      const auto row = rows.find(unit);
      const int32_t state = row == rows.end() ? 1 : row->second.first;
      const UnitStatus status = cell.units.Get(index);
      if (kStates[static_cast<size_t>(status)] != state) {
        return Fail(fmt::format("{} is in state {} in memory and {} in the database", Name(unit),
                                kStates[static_cast<size_t>(status)], state));
      }
      if (status != UnitStatus::kLeased) continue;
      const auto& lease = scheduler.leases().at(cell.holder.at(index));
      if (lease.lease_id != row->second.second) {
        return Fail(Name(unit) + " is under another lease in memory than in the database");
      }
    }
  }
}

void Oracle::CheckLeases(const Scheduler& scheduler, bool ticked) {
  const Instant now = events_->now();
  for (auto it = leases_.begin(); it != leases_.end();) {
    const auto& [lease_id, lease] = *it;
    const bool is_open = scheduler.FindLease(lease_id) != nullptr;
    if (is_open && ticked && now > lease.ends_by) {
      return Fail(fmt::format("lease {} lives {} too long", lease_id,
                              absl::FormatDuration(now - lease.ends_by)));
    }
    if (!is_open && now < lease.lives_until && !batch_unlisting_.contains(lease.worker_id)) {
      auto find = reader_->Prepare("SELECT end_reason FROM lease WHERE public_id = ?1");
      std::string reason;
      if (find.ok() && find->Bind(lease_id).Step().value_or(false)) Row(*find).Read(&reason);
      if (reason == "expired") {
        return Fail(fmt::format("lease {} expires {} too soon", lease_id,
                                absl::FormatDuration(lease.lives_until - now)));
      }
    }
    it = is_open ? std::next(it) : leases_.erase(it);
  }
}

// Healthy units are never put away: it must have failed once in company and twice alone, on two
// incarnations, or three times alone on one.
void Oracle::CheckQuarantine(const Scheduler& scheduler) {
  for (const auto& [cell_id, cell] : scheduler.cells()) {
    for (int32_t index = 0; index < cell.units.num_units(); ++index) {
      if (cell.units.Get(index) != UnitStatus::kQuarantined) continue;
      const UnitId unit = {cell_id, cell.units.ItemOf(index), cell.units.RepeatOf(index)};
      if (!quarantined_.insert(unit).second) continue;
      const size_t least = failed_on_[unit].size() < 2 ? 4 : 3;
      if (failed_epochs_[unit].size() < least) {
        return Fail(Name(unit) + " is quarantined without a reason");
      }
    }
  }
}

}  // namespace assay::simulation
