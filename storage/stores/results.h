// What the read side answers with.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "storage/stores/records.h"

namespace assay::storage {

// Values of assay.v1.Grade.Verdict; 0 is a sample that no grader has seen.
enum class Verdict : int32_t {
  kNone = 0,
  kCorrect = 1,
  kWrong = 2,
  kNoAnswer = 3,     // counted as wrong
  kGraderError = 4,  // never counted as wrong: ungradable
};

// Values of assay.v1.FinishReason that mean a cut answer.
inline constexpr int32_t kFinishLength = 2;
inline constexpr int32_t kFinishContext = 3;

// One sample as statistics see it. Level and subject: Items()[item_index].
struct UnitOutcome {
  int64_t sample_id = 0;
  int32_t item_index = 0;
  int32_t repeat = 0;
  Verdict verdict = Verdict::kNone;
  bool truncated = false;
  bool rerolled = false;  // of a later attempt than the unit's first
  int64_t completion_tokens = 0;
};

struct CellCounts {
  int64_t num_done = 0;
  int64_t num_leased = 0;
  int64_t num_quarantined = 0;
  int64_t num_rerolls = 0;  // units granted more than once
  int64_t num_graded = 0;   // correct, wrong or no answer
  int64_t num_correct = 0;
  int64_t num_ungradable = 0;  // the grader failed
  int64_t num_truncated = 0;
  int64_t completion_tokens = 0;
};

// A cell with its names spelt out.
struct CellSummary {
  CellRecord cell;
  ModelRecord model;
  BenchmarkRecord benchmark;
  std::optional<ArtifactRecord> artifact;
  std::string job_error;  // of its artifact's job, when that failed
  CellCounts counts;
};

// The same within a sweep: `counts` are of the items and repeats that the sweep wants.
struct SweepCellSummary {
  SweepCellRecord place;
  CellSummary cell;
  int64_t num_units() const { return int64_t{place.num_items} * place.num_repeats; }
};

enum class SampleFilter { kAll, kCorrect, kWrong, kTruncated, kUngradable };

struct SampleQuery {
  int64_t sweep_row_id = 0;  // this or cell_id
  int64_t cell_id = 0;
  std::string item;                          // the item's name; empty is all
  SampleFilter filter = SampleFilter::kAll;  // kWrong includes no answer
  int32_t limit = 100;
  std::string page_token;  // from the page before; INVALID_ARGUMENT when it is not one
};

struct SampleSummary {
  int64_t sample_id = 0;
  UnitId unit;
  std::string model;
  MethodRecord method;
  std::string benchmark;
  std::string item;  // its name
  std::string level;
  std::optional<GradeRecord> grade;  // the current one
  int32_t finish_reason = 0;
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t thinking_tokens = -1;
  int64_t ttft_us = 0;
  int64_t e2e_us = 0;
};

struct SamplePage {
  std::vector<SampleSummary> samples;  // in (cell, item, repeat) order
  std::string next_page_token;         // empty on the last page
};

struct SampleDetail {
  SampleSummary summary;
  ItemRecord item;
  std::string text;  // the answer, decompressed
  std::vector<int32_t> token_ids;
  SampleRecord record;              // without texts and grade
  ProvenanceRecord provenance;      // of the lease under which it was made
  std::vector<GradeRecord> grades;  // newest first
};

// The database as a whole.
struct StoreTotals {
  int64_t num_samples = 0;
  int64_t num_quarantined = 0;               // units
  std::map<SweepState, int64_t> num_sweeps;  // states without a sweep are missing
  int64_t database_bytes = 0;
  int64_t wal_bytes = 0;
};

}  // namespace assay::storage
