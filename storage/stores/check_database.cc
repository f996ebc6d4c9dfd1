#include "storage/stores/check_database.h"

#include <memory>

#include "base/status.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/connection.h"
#include "storage/stores/read_scope.h"
#include "storage/text/text_codec.h"

namespace assay::storage {
namespace {

using sqlite::Connection;
using sqlite::Row;
using sqlite::Statement;

// Each query gives the rows that should not be, named in its one column.
struct Invariant {
  const char* name;
  const char* meaning;
  const char* violations;
};

constexpr Invariant kInvariants[] = {
    {"foreign-keys", "a row refers to one that is not there",
     "SELECT \"table\" || ' row ' || coalesce(rowid, '?') FROM pragma_foreign_key_check"},
    {"sample-text", "a sample has no text",
     "SELECT 'sample ' || id FROM sample WHERE id NOT IN (SELECT sample_id FROM sample_text)"},
    {"text-sample", "a text belongs to no sample",
     "SELECT 'text of sample ' || sample_id FROM sample_text"
     " WHERE sample_id NOT IN (SELECT id FROM sample)"},
    {"sample-lease", "a sample's lease is missing or of another cell",
     "SELECT 'sample ' || s.id FROM sample AS s LEFT JOIN lease AS l ON l.id = s.lease_id"
     " WHERE l.cell_id IS NOT s.cell_id"},
    {"sample-unit", "a sample's unit does not know it",
     "SELECT 'sample ' || s.id FROM sample AS s LEFT JOIN unit AS u USING(cell_id, item_index,"
     " repeat) WHERE u.sample_id IS NOT s.id OR u.state IS NOT 3"},
    {"unit-sample", "a done unit has no sample",
     "SELECT 'cell ' || cell_id || ' item ' || item_index || ' repeat ' || repeat FROM unit"
     " WHERE state = 3 AND sample_id NOT IN (SELECT id FROM sample)"},
    {"sample-epoch", "a sample is of a grant that its unit never had",
     "SELECT 'sample ' || s.id FROM sample AS s JOIN unit AS u USING(cell_id, item_index, repeat)"
     " WHERE s.epoch < 1 OR s.epoch > u.epoch"},
    {"attempt-epoch", "an attempt is of a grant that its unit never had, or brought the sample",
     "SELECT 'attempt ' || a.id FROM attempt AS a"
     " LEFT JOIN unit AS u USING(cell_id, item_index, repeat)"
     " LEFT JOIN sample AS s ON s.id = u.sample_id"
     " WHERE u.epoch IS NULL OR a.epoch > u.epoch OR a.epoch = s.epoch"},
    {"unit-grants", "a unit was granted more often than its epoch rose",
     "SELECT 'cell ' || cell_id || ' item ' || item_index || ' repeat ' || repeat FROM unit"
     " WHERE num_grants > epoch OR epoch < 1"},
    {"leased-unit", "a unit is leased under a lease that has ended",
     "SELECT 'lease ' || l.public_id FROM unit AS u JOIN lease AS l ON l.id = u.lease_id"
     " WHERE u.state = 2 AND l.ended_time_us IS NOT NULL"},
    {"unit-copy", "a unit repeats other numbers than its sample has",
     "SELECT 'sample ' || s.id FROM sample AS s JOIN unit AS u ON u.cell_id = s.cell_id"
     " AND u.item_index = s.item_index AND u.repeat = s.repeat"
     " WHERE u.completion_tokens != s.completion_tokens OR u.finish_reason != s.finish_reason"},
    {"unit-verdict", "a unit's verdict is of no grade of its sample",
     "SELECT 'sample ' || u.sample_id FROM unit AS u WHERE u.state = 3 AND NOT"
     " (CASE u.verdict WHEN 0 THEN NOT EXISTS(SELECT 1 FROM grade WHERE sample_id = u.sample_id)"
     " ELSE EXISTS(SELECT 1 FROM grade WHERE sample_id = u.sample_id AND verdict = u.verdict)"
     " END)"},
    {"unit-item", "a unit is of an item that its benchmark does not have",
     "SELECT 'cell ' || u.cell_id || ' item ' || u.item_index FROM unit AS u"
     " JOIN cell AS c ON c.id = u.cell_id JOIN benchmark AS b ON b.id = c.benchmark_id"
     " WHERE u.item_index < 0 OR u.item_index >= b.num_items OR u.repeat < 0"},
    {"benchmark-items", "a benchmark has not the items that it counts",
     "SELECT 'benchmark ' || b.name FROM benchmark AS b WHERE b.num_items !="
     " (SELECT count(*) FROM item AS i WHERE i.benchmark_id = b.id)"},
    {"done-sweep", "a sweep is done and lacks units",
     "SELECT s.public_id FROM sweep AS s JOIN sweep_cell AS p ON p.sweep_id = s.id"
     " WHERE s.state = 4 AND p.num_items * p.num_repeats >"
     " (SELECT count(*) FROM unit AS u WHERE u.cell_id = p.cell_id"
     " AND u.item_index < p.num_items AND u.repeat < p.num_repeats AND u.state >= 3)"},
};

absl::Status CheckInvariant(Connection* db, const Invariant& invariant, DatabaseCheck* check) {
  DatabaseFinding finding{invariant.name, invariant.meaning};
  ASSAY_ASSIGN_OR_RETURN(Statement statement, db->Prepare(invariant.violations));
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    if (++finding.num_rows == 1) Row(statement).Read(&finding.example);
  }
  if (finding.num_rows > 0) check->findings.push_back(std::move(finding));
  ++check->num_checks;
  return absl::OkStatus();
}

// Every text can be read.
absl::Status CheckTexts(Connection* db, DatabaseCheck* check) {
  DatabaseFinding finding{"text-bytes", "a stored text cannot be unpacked"};
  ASSAY_ASSIGN_OR_RETURN(Statement statement,
                         db->Prepare("SELECT sample_id, codec, text, token_ids FROM sample_text"));
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool more, statement.Step());
    if (!more) break;
    int64_t sample_id = 0;
    int codec = 0;
    std::string text;
    std::string token_ids;
    Row(statement).Read(&sample_id, &codec, &text, &token_ids);
    if (codec == kCodecZstd && DecompressText(text).ok() && DecompressTokenIds(token_ids).ok()) {
      continue;
    }
    if (++finding.num_rows == 1) finding.example = fmt::format("sample {}", sample_id);
  }
  if (finding.num_rows > 0) check->findings.push_back(std::move(finding));
  ++check->num_checks;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DatabaseCheck> CheckDatabase(const std::string& path, bool quick) {
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> db, Connection::OpenReader(path));
  ASSAY_RETURN_IF_ERROR(CheckSchemaVersion(db.get()));
  ASSAY_ASSIGN_OR_RETURN(const ReadScope scope, ReadScope::Open(db.get()));
  DatabaseCheck check;
  ++check.num_checks;
  if (const absl::Status file = db->CheckIntegrity(/*full=*/!quick); absl::IsDataLoss(file)) {
    check.findings.push_back({"file", "SQLite finds damage", 1, Message(file)});
  } else if (!file.ok()) {
    return file;
  }
  for (const Invariant& invariant : kInvariants) {
    ASSAY_RETURN_IF_ERROR(CheckInvariant(db.get(), invariant, &check));
  }
  if (!quick) ASSAY_RETURN_IF_ERROR(CheckTexts(db.get(), &check));
  ASSAY_ASSIGN_OR_RETURN(check.num_samples, db->QueryInteger("SELECT count(*) FROM sample"));
  return check;
}

}  // namespace assay::storage
