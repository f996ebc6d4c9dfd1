// Samples and grades. SQL decides what is kept, not the state in memory: so a lost message, a
// restart or a bug above cannot store a sample twice or under a wrong epoch.
#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/control_store.h"
#include "storage/text/text_codec.h"

namespace assay::storage {

using sqlite::Blob;
using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

namespace {

// A lease is its worker's own, open or ended. Without a grant since its sample was requeued a
// unit's epoch is nobody's, though it names its old lease still. Cancelled is sweep state 3. A cell
// that no sweep wants any more takes no samples.
constexpr char kInsertSample[] =
    "INSERT INTO sample(cell_id, item_index, repeat, lease_id, epoch, seed, prompt_sha256,"
    "   prompt_tokens, completion_tokens, thinking_tokens, finish_reason, queue_us, ttft_us,"
    "   e2e_us, mean_batch_size, num_preemptions, finished_time_us, stored_time_us)"
    " SELECT u.cell_id, u.item_index, u.repeat, u.lease_id, u.epoch, ?6, ?7, ?8, ?9, ?10, ?11,"
    "        ?12, ?13, ?14, ?15, ?16, ?17, ?18"
    "   FROM unit AS u JOIN lease AS l ON l.id = u.lease_id"
    "  WHERE u.cell_id = ?1 AND u.item_index = ?2 AND u.repeat = ?3 AND u.epoch = ?4"
    "    AND u.state <> 3 AND u.num_grants > 0 AND l.public_id = ?5"
    "    AND (?19 = '' OR l.worker_id = ?19)"
    "    AND EXISTS (SELECT 1 FROM sweep_cell AS sc JOIN sweep AS s ON s.id = sc.sweep_id"
    "                 WHERE sc.cell_id = u.cell_id AND sc.num_items > u.item_index"
    "                   AND sc.num_repeats > u.repeat AND s.state <> 3)"
    " ON CONFLICT(cell_id, item_index, repeat) DO NOTHING"
    " RETURNING id";

// The newest grade; equal times fall to the names, so that the choice is the same everywhere.
constexpr char kUpdateVerdict[] =
    "UPDATE unit SET verdict ="
    "   (SELECT verdict FROM grade WHERE sample_id = ?1"
    "     ORDER BY graded_time_us DESC, grader DESC, grader_version DESC LIMIT 1)"
    " WHERE (cell_id, item_index, repeat) ="
    "   (SELECT cell_id, item_index, repeat FROM sample WHERE id = ?1)";

std::optional<int64_t> NullIfNone(int64_t thinking_tokens) {
  return thinking_tokens < 0 ? std::nullopt : std::optional<int64_t>(thinking_tokens);
}

// 0 when the guard refused it.
absl::StatusOr<int64_t> InsertGuarded(Connection* db, const SampleRecord& sample, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Statement insert, db->Prepare(kInsertSample));
  const UnitId& unit = sample.unit;
  insert.Bind(unit.cell_id, unit.item_index, unit.repeat, sample.epoch, sample.lease_id,
              sample.seed, Blob{sample.prompt_sha256}, sample.prompt_tokens,
              sample.completion_tokens, NullIfNone(sample.thinking_tokens), sample.finish_reason,
              sample.queue_us, sample.ttft_us, sample.e2e_us, sample.mean_batch_size,
              sample.num_preemptions, sample.finished_time_us, time_us, sample.worker_id);
  ASSAY_ASSIGN_OR_RETURN(const bool inserted, insert.Step());
  int64_t sample_id = 0;
  if (inserted) Row(insert).Read(&sample_id);
  return sample_id;
}

absl::StatusOr<InsertOutcome> WhyRefused(Connection* db, const SampleRecord& sample) {
  const UnitId& unit = sample.unit;
  ASSAY_ASSIGN_OR_RETURN(
      Statement find, db->Prepare("SELECT s.epoch, l.public_id FROM sample AS s JOIN lease AS l"
                                  "    ON l.id = s.lease_id"
                                  " WHERE s.cell_id = ?1 AND s.item_index = ?2 AND s.repeat = ?3"));
  ASSAY_ASSIGN_OR_RETURN(const bool found,
                         find.Bind(unit.cell_id, unit.item_index, unit.repeat).Step());
  if (found) {
    int64_t epoch = 0;
    std::string lease_id;
    Row(find).Read(&epoch, &lease_id);
    if (epoch == sample.epoch && lease_id == sample.lease_id) return InsertOutcome::kDuplicate;
  }
  // Its attempt ended before (by expiry, say); now it is known how.
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE attempt SET outcome = 'fenced' WHERE cell_id = ?1 AND item_index = ?2"
              " AND repeat = ?3 AND epoch = ?4 AND outcome IN ('expired', 'worker_lost')"
              " AND lease_id = (SELECT id FROM lease WHERE public_id = ?5)",
              unit.cell_id, unit.item_index, unit.repeat, sample.epoch, sample.lease_id));
  return InsertOutcome::kFenced;
}

}  // namespace

absl::StatusOr<ControlStore::InsertedSample> ControlStore::InsertSample(const SampleRecord& sample,
                                                                        int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(const int64_t sample_id, InsertGuarded(db, sample, time_us));
  InsertedSample inserted;
  if (sample_id == 0) {
    ASSAY_ASSIGN_OR_RETURN(inserted.outcome, WhyRefused(db, sample));
    return inserted;
  }
  inserted = {InsertOutcome::kAccepted, sample_id};
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO sample_text(sample_id, codec, text, token_ids) VALUES(?1, ?2, ?3, ?4)",
              sample_id, kCodecZstd, Blob{sample.text_zstd}, Blob{sample.token_ids_zstd}));
  const UnitId& unit = sample.unit;
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE unit SET state = 3, sample_id = ?4, verdict = ?5, finish_reason = ?6,"
              "   completion_tokens = ?7, thinking_tokens = ?8"
              " WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3",
              unit.cell_id, unit.item_index, unit.repeat, sample_id,
              sample.grade.has_value() ? sample.grade->verdict : 0, sample.finish_reason,
              sample.completion_tokens, NullIfNone(sample.thinking_tokens)));
  // A late answer: the attempt was written off, and did bring a sample after all.
  ASSAY_RETURN_IF_ERROR(
      db->Run("DELETE FROM attempt WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3"
              " AND epoch = ?4",
              unit.cell_id, unit.item_index, unit.repeat, sample.epoch));
  if (sample.grade.has_value()) {
    ASSAY_RETURN_IF_ERROR(StoreGrade(sample_id, *sample.grade, time_us));
  }
  return inserted;
}

absl::Status ControlStore::StoreGrade(int64_t sample_id, const GradeRecord& grade,
                                      int64_t time_us) {
  return connection_->Run(
      "INSERT INTO grade(sample_id, grader, grader_version, verdict, extracted, detail,"
      "   duration_us, graded_time_us) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
      " ON CONFLICT(sample_id, grader, grader_version) DO UPDATE"
      " SET verdict = excluded.verdict, extracted = excluded.extracted, detail = excluded.detail,"
      "     duration_us = excluded.duration_us, graded_time_us = excluded.graded_time_us",
      sample_id, grade.grader, grade.grader_version, grade.verdict, grade.extracted, grade.detail,
      grade.duration_us, time_us);
}

absl::Status ControlStore::InsertGrade(int64_t sample_id, const GradeRecord& grade,
                                       int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  ASSAY_ASSIGN_OR_RETURN(Statement find, db->Prepare("SELECT 1 FROM sample WHERE id = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, find.Bind(sample_id).Step());
  if (!found) return NotFound("there is no sample {}", sample_id);
  ASSAY_RETURN_IF_ERROR(StoreGrade(sample_id, grade, time_us));
  return db->Run(kUpdateVerdict, sample_id);
}

absl::StatusOr<UnitId> ControlStore::RequeueSample(int64_t sample_id, int64_t time_us) {
  ASSAY_ASSIGN_OR_RETURN(Connection* const db, Writable());
  UnitId unit;
  {
    ASSAY_ASSIGN_OR_RETURN(
        Statement find,
        db->Prepare("SELECT cell_id, item_index, repeat FROM sample WHERE id = ?1"));
    ASSAY_ASSIGN_OR_RETURN(const bool found, find.Bind(sample_id).Step());
    if (!found) return NotFound("there is no sample {}; it may have been requeued", sample_id);
    Row(find).Read(&unit.cell_id, &unit.item_index, &unit.repeat);
  }
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO requeued_sample(id, cell_id, item_index, repeat, lease_id, epoch, seed,"
              "   prompt_sha256, prompt_tokens, completion_tokens, thinking_tokens, finish_reason,"
              "   queue_us, ttft_us, e2e_us, mean_batch_size, num_preemptions, finished_time_us,"
              "   stored_time_us, codec, text, token_ids, requeued_time_us)"
              " SELECT s.id, s.cell_id, s.item_index, s.repeat, s.lease_id, s.epoch, s.seed,"
              "        s.prompt_sha256, s.prompt_tokens, s.completion_tokens, s.thinking_tokens,"
              "        s.finish_reason, s.queue_us, s.ttft_us, s.e2e_us, s.mean_batch_size,"
              "        s.num_preemptions, s.finished_time_us, s.stored_time_us, t.codec, t.text,"
              "        t.token_ids, ?2"
              "   FROM sample AS s JOIN sample_text AS t ON t.sample_id = s.id WHERE s.id = ?1",
              sample_id, time_us));
  ASSAY_RETURN_IF_ERROR(
      db->Run("INSERT INTO requeued_grade(sample_id, grader, grader_version, verdict, extracted,"
              "   detail, duration_us, graded_time_us)"
              " SELECT sample_id, grader, grader_version, verdict, extracted, detail, duration_us,"
              "        graded_time_us FROM grade WHERE sample_id = ?1",
              sample_id));
  // Text and grades go with it (ON DELETE CASCADE).
  ASSAY_RETURN_IF_ERROR(db->Run("DELETE FROM sample WHERE id = ?1", sample_id));
  // The raised epoch fences a second report of the old sample.
  ASSAY_RETURN_IF_ERROR(
      db->Run("UPDATE unit SET state = 1, epoch = epoch + 1, num_grants = 0, num_failures = 0,"
              "   sample_id = NULL, verdict = 0, finish_reason = 0, completion_tokens = 0,"
              "   thinking_tokens = NULL"
              " WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3",
              unit.cell_id, unit.item_index, unit.repeat));
  ASSAY_RETURN_IF_ERROR(db->Run(
      "UPDATE attempt SET forgiven = 1 WHERE cell_id = ?1 AND item_index = ?2 AND repeat = ?3",
      unit.cell_id, unit.item_index, unit.repeat));
  return unit;
}

}  // namespace assay::storage
