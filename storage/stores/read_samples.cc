// Samples, one page or one at a time.
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/read_scope.h"
#include "storage/stores/read_store.h"
#include "storage/stores/rows.h"
#include "storage/text/text_codec.h"

namespace assay::storage {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

namespace {

// Where a page ended: "cell.item.repeat".
std::string PageToken(const UnitId& last) {
  return fmt::format("{}.{}.{}", last.cell_id, last.item_index, last.repeat);
}

absl::StatusOr<UnitId> ParsePageToken(const std::string& token) {
  if (token.empty()) return UnitId{-1, -1, -1};
  UnitId unit;
  const char* position = token.data();
  const char* const end = token.data() + token.size();
  const auto read = [&](auto* number, bool last) {
    const auto [next, error] = std::from_chars(position, end, *number);
    if (error != std::errc() || next == position) return false;
    position = next;
    if (last) return position == end;
    return position != end && *position++ == '.';
  };
  if (read(&unit.cell_id, false) && read(&unit.item_index, false) && read(&unit.repeat, true)) {
    return unit;
  }
  return InvalidArgument("'{}' is not a page token of a list of samples", token);
}

// The cells to look through, in order of their ids, each with how much of it is wanted.
absl::StatusOr<std::map<int64_t, SweepCellRecord>> WantedCells(Connection* db,
                                                               const SampleQuery& query) {
  std::map<int64_t, SweepCellRecord> wanted;
  if (query.sweep_row_id == 0) {
    ASSAY_RETURN_IF_ERROR(LoadCell(db, query.cell_id).status());  // NOT_FOUND
    SweepCellRecord& all = wanted[query.cell_id];
    all.num_items = std::numeric_limits<int32_t>::max();
    all.num_repeats = std::numeric_limits<int32_t>::max();
    return wanted;
  }
  ASSAY_ASSIGN_OR_RETURN(const std::vector<SweepCellRecord> cells,
                         LoadSweepCells(db, query.sweep_row_id));
  for (const SweepCellRecord& cell : cells) {
    if (query.cell_id == 0 || query.cell_id == cell.cell_id) wanted[cell.cell_id] = cell;
  }
  return wanted;
}

// Newest first, as the current verdict is chosen.
absl::StatusOr<std::vector<GradeRecord>> LoadGrades(Connection* db, int64_t sample_id) {
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      db->Prepare("SELECT grader, grader_version, verdict, extracted, detail, duration_us"
                  "  FROM grade WHERE sample_id = ?1"
                  " ORDER BY graded_time_us DESC, grader DESC, grader_version DESC"));
  statement.Bind(sample_id);
  std::vector<GradeRecord> grades;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) return grades;
    GradeRecord& grade = grades.emplace_back();
    Row(statement).Read(&grade.grader, &grade.grader_version, &grade.verdict, &grade.extracted,
                        &grade.detail, &grade.duration_us);
  }
}

constexpr char kListCell[] =
    "SELECT s.id, s.cell_id, s.item_index, s.repeat, i.name, i.level, s.finish_reason,"
    "       s.prompt_tokens, s.completion_tokens, coalesce(s.thinking_tokens, -1), s.ttft_us,"
    "       s.e2e_us"
    "  FROM cell AS c"
    "  CROSS JOIN unit AS u ON u.cell_id = c.id AND u.state = 3"
    "  CROSS JOIN sample AS s ON s.id = u.sample_id"
    "  CROSS JOIN item AS i ON i.benchmark_id = c.benchmark_id AND i.item_index = u.item_index"
    " WHERE c.id = ?1 AND (u.item_index, u.repeat) > (?2, ?3)"
    "   AND u.item_index < ?4 AND u.repeat < ?5"
    "   AND CASE ?6 WHEN 0 THEN 1 WHEN 1 THEN u.verdict = 1 WHEN 2 THEN u.verdict IN (2, 3)"
    "               WHEN 3 THEN u.finish_reason IN (2, 3) ELSE u.verdict = 4 END"
    "   AND (?7 = '' OR i.name = ?7)"
    " ORDER BY u.item_index, u.repeat LIMIT ?8";

// A cell's names, which all its samples share.
absl::StatusOr<SampleSummary> SummaryOfCell(Connection* db, int64_t cell_id) {
  ASSAY_ASSIGN_OR_RETURN(const CellRecord cell, LoadCell(db, cell_id));
  ASSAY_ASSIGN_OR_RETURN(const ModelRecord model, LoadModel(db, cell.model_id));
  ASSAY_ASSIGN_OR_RETURN(const BenchmarkRecord benchmark, LoadBenchmark(db, cell.benchmark_id));
  SampleSummary summary;
  summary.unit.cell_id = cell_id;
  summary.model = model.name;
  summary.method = cell.method;
  summary.benchmark = benchmark.name;
  return summary;
}

}  // namespace

absl::StatusOr<SamplePage> ReadStore::ListSamples(const SampleQuery& query) {
  Connection* const db = connection_.get();
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(db));
  ASSAY_ASSIGN_OR_RETURN(const UnitId after, ParsePageToken(query.page_token));
  ASSAY_ASSIGN_OR_RETURN(const auto cells, WantedCells(db, query));
  const int32_t limit = std::max(query.limit, 1);
  SamplePage page;
  for (auto cell = cells.lower_bound(after.cell_id); cell != cells.end(); ++cell) {
    const auto& [cell_id, wanted] = *cell;
    ASSAY_ASSIGN_OR_RETURN(const SampleSummary of_cell, SummaryOfCell(db, cell_id));
    const bool resumes_here = cell_id == after.cell_id;
    ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(kListCell));
    // One more than fits tells whether there is a next page.
    const int64_t num_wanted = int64_t{limit} + 1 - static_cast<int64_t>(page.samples.size());
    statement.Bind(cell_id, resumes_here ? after.item_index : -1, resumes_here ? after.repeat : -1,
                   wanted.num_items, wanted.num_repeats, query.filter, query.item, num_wanted);
    while (true) {
      ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
      if (!more) break;
      SampleSummary& sample = page.samples.emplace_back(of_cell);
      Row(statement)
          .Read(&sample.sample_id, &sample.unit.cell_id, &sample.unit.item_index,
                &sample.unit.repeat, &sample.item, &sample.level, &sample.finish_reason)
          .Read(&sample.prompt_tokens, &sample.completion_tokens, &sample.thinking_tokens,
                &sample.ttft_us, &sample.e2e_us);
    }
    if (page.samples.size() > static_cast<size_t>(limit)) {
      page.samples.pop_back();
      page.next_page_token = PageToken(page.samples.back().unit);
      break;
    }
  }
  for (SampleSummary& sample : page.samples) {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<GradeRecord> grades, LoadGrades(db, sample.sample_id));
    if (!grades.empty()) sample.grade = grades.front();
  }
  return page;
}

absl::StatusOr<SampleDetail> ReadStore::GetSample(int64_t sample_id) {
  Connection* const db = connection_.get();
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(db));
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      db->Prepare(
          "SELECT s.id, s.cell_id, s.item_index, s.repeat, s.epoch, s.seed,"
          "       s.prompt_sha256, s.prompt_tokens, s.completion_tokens,"
          "       coalesce(s.thinking_tokens, -1), s.finish_reason, s.queue_us, s.ttft_us,"
          "       s.e2e_us, s.mean_batch_size, s.num_preemptions, s.finished_time_us,"
          "       l.public_id, l.worker_id, l.incarnation,"
          "       p.git_commit, p.assay_version, p.build_type, p.compiler, p.hostname,"
          "       p.device, p.backend, p.engine_numerics_version, p.driver_versions,"
          "       i.item_index, i.name, i.level, i.subject, i.gold, i.question, i.user_text,"
          "       t.text, t.token_ids"
          "  FROM sample AS s"
          "  JOIN cell AS c ON c.id = s.cell_id"
          "  JOIN lease AS l ON l.id = s.lease_id"
          "  JOIN provenance AS p ON p.id = l.provenance_id"
          "  JOIN item AS i ON i.benchmark_id = c.benchmark_id"
          "    AND i.item_index = s.item_index"
          "  JOIN sample_text AS t ON t.sample_id = s.id"
          " WHERE s.id = ?1"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(sample_id).Step());
  if (!found) return NotFound("there is no sample {}; `assay sample ls` lists them", sample_id);
  SampleDetail detail;
  SampleRecord& record = detail.record;
  ProvenanceRecord& provenance = detail.provenance;
  ItemRecord& item = detail.item;
  std::string packed_text;
  std::string packed_ids;
  Row(statement)
      .Read(&record.id, &record.unit.cell_id, &record.unit.item_index, &record.unit.repeat)
      .Read(&record.epoch, &record.seed, &record.prompt_sha256, &record.prompt_tokens)
      .Read(&record.completion_tokens, &record.thinking_tokens, &record.finish_reason)
      .Read(&record.queue_us, &record.ttft_us, &record.e2e_us, &record.mean_batch_size)
      .Read(&record.num_preemptions, &record.finished_time_us)
      .Read(&record.lease_id, &record.worker_id, &record.incarnation)
      .Read(&provenance.git_commit, &provenance.assay_version, &provenance.build_type)
      .Read(&provenance.compiler, &provenance.hostname, &provenance.device, &provenance.backend)
      .Read(&provenance.engine_numerics_version, &provenance.driver_versions)
      .Read(&item.item_index, &item.name, &item.level, &item.subject, &item.gold, &item.question)
      .Read(&item.user_text, &packed_text, &packed_ids);
  absl::StatusOr<std::string> text = DecompressText(packed_text);
  if (!text.ok()) return DataLoss("sample {}: text: {}", sample_id, Message(text.status()));
  detail.text = *std::move(text);
  absl::StatusOr<std::vector<int32_t>> token_ids = DecompressTokenIds(packed_ids);
  if (!token_ids.ok()) {
    return DataLoss("sample {}: token ids: {}", sample_id, Message(token_ids.status()));
  }
  detail.token_ids = *std::move(token_ids);
  ASSAY_ASSIGN_OR_RETURN(detail.grades, LoadGrades(db, sample_id));
  ASSAY_ASSIGN_OR_RETURN(detail.summary, SummaryOfCell(db, record.unit.cell_id));

  SampleSummary& summary = detail.summary;
  summary.sample_id = sample_id;
  summary.unit = record.unit;
  summary.item = item.name;
  summary.level = item.level;
  if (!detail.grades.empty()) summary.grade = detail.grades.front();
  summary.finish_reason = record.finish_reason;
  summary.prompt_tokens = record.prompt_tokens;
  summary.completion_tokens = record.completion_tokens;
  summary.thinking_tokens = record.thinking_tokens;
  summary.ttft_us = record.ttft_us;
  summary.e2e_us = record.e2e_us;
  return detail;
}

absl::StatusOr<int64_t> ReadStore::FindSample(int64_t cell_id, int32_t item_index, int32_t repeat) {
  ASSAY_ASSIGN_OR_RETURN(
      Statement statement,
      connection_->Prepare("SELECT sample_id FROM unit WHERE cell_id = ?1 AND item_index = ?2"
                           " AND repeat = ?3 AND state = 3"));
  ASSAY_ASSIGN_OR_RETURN(const bool found, statement.Bind(cell_id, item_index, repeat).Step());
  if (!found) {
    return NotFound("cell {} has no sample of item {}, repeat {}", cell_id, item_index, repeat);
  }
  int64_t sample_id = 0;
  Row(statement).Read(&sample_id);
  return sample_id;
}

}  // namespace assay::storage
