#include "tests/chaos/sweep_results.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

#include "base/status.h"
#include "storage/sqlite/connection.h"
#include "storage/text/text_codec.h"

namespace assay::chaos {
namespace {

using storage::sqlite::Connection;
using storage::sqlite::Row;
using storage::sqlite::Statement;

constexpr char kSelect[] =
    "SELECT cell.key, sample.item_index, sample.repeat, sample.seed, sample.prompt_sha256,"
    "   sample.prompt_tokens, sample.completion_tokens, sample.thinking_tokens,"
    "   sample.finish_reason, sample_text.token_ids, sample_text.text, grade.verdict,"
    "   grade.extracted"
    " FROM sample JOIN cell ON cell.id = sample.cell_id"
    " JOIN sample_text ON sample_text.sample_id = sample.id"
    " LEFT JOIN grade ON grade.sample_id = sample.id"
    " ORDER BY cell.key, sample.item_index, sample.repeat";

using UnitName = std::tuple<std::string, int64_t, int64_t>;

UnitName NameOf(const UnitResult& result) {
  return {result.cell_key, result.item_index, result.repeat};
}

std::string Describe(const UnitResult& result) {
  return fmt::format("cell {} item {} repeat {}", result.cell_key.substr(0, 12), result.item_index,
                     result.repeat);
}

std::string FirstOtherToken(const std::vector<int32_t>& was, const std::vector<int32_t>& is) {
  if (was.size() != is.size()) return fmt::format("{} token ids, were {}", is.size(), was.size());
  const auto [a, b] = std::mismatch(was.begin(), was.end(), is.begin());
  return fmt::format("token {} is {}, was {}", a - was.begin(), *b, *a);
}

// What is other in `is`; empty when nothing.
std::optional<std::string> WhatIsAltered(const UnitResult& was, const UnitResult& is) {
  const auto other = [](const char* what, auto now, auto before) {
    return fmt::format("{} is {}, was {}", what, now, before);
  };
  if (is.seed != was.seed) return other("seed", is.seed, was.seed);
  if (is.prompt_sha256 != was.prompt_sha256) return "another prompt";
  if (is.prompt_tokens != was.prompt_tokens) {
    return other("prompt_tokens", is.prompt_tokens, was.prompt_tokens);
  }
  if (is.token_ids != was.token_ids) return FirstOtherToken(was.token_ids, is.token_ids);
  if (is.completion_tokens != was.completion_tokens) {
    return other("completion_tokens", is.completion_tokens, was.completion_tokens);
  }
  if (is.thinking_tokens != was.thinking_tokens) {
    return other("thinking_tokens", is.thinking_tokens, was.thinking_tokens);
  }
  if (is.text != was.text) return "another text from the same tokens";
  if (is.finish_reason != was.finish_reason) {
    return other("finish_reason", is.finish_reason, was.finish_reason);
  }
  if (is.verdict != was.verdict) return other("verdict", is.verdict, was.verdict);
  if (is.extracted != was.extracted) return other("extracted answer", is.extracted, was.extracted);
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::vector<UnitResult>> ReadResults(const std::string& database) {
  ASSAY_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                         Connection::OpenReader(database));
  ASSAY_ASSIGN_OR_RETURN(Statement select, connection->Prepare(kSelect));
  std::vector<UnitResult> results;
  while (true) {
    ASSAY_ASSIGN_OR_RETURN(const bool found, select.Step());
    if (!found) return results;
    UnitResult& result = results.emplace_back();
    std::optional<int64_t> thinking_tokens;
    std::string packed_ids;
    std::string packed_text;
    Row(select).Read(&result.cell_key, &result.item_index, &result.repeat, &result.seed,
                     &result.prompt_sha256, &result.prompt_tokens, &result.completion_tokens,
                     &thinking_tokens, &result.finish_reason, &packed_ids, &packed_text,
                     &result.verdict, &result.extracted);
    result.thinking_tokens = thinking_tokens.value_or(-1);
    absl::StatusOr<std::vector<int32_t>> ids = storage::DecompressTokenIds(packed_ids);
    absl::StatusOr<std::string> text = storage::DecompressText(packed_text);
    if (!ids.ok() || !text.ok()) {
      return DataLoss("{}: {}", Describe(result), Message(ids.ok() ? text.status() : ids.status()));
    }
    result.token_ids = *std::move(ids);
    result.text = *std::move(text);
  }
}

Differences Compare(const std::vector<UnitResult>& undisturbed,
                    const std::vector<UnitResult>& disturbed) {
  Differences differences;
  std::map<UnitName, const UnitResult*> missing;
  for (const UnitResult& result : undisturbed) missing[NameOf(result)] = &result;
  std::map<UnitName, int> seen;
  for (const UnitResult& result : disturbed) {
    if (++seen[NameOf(result)] > 1) {
      ++differences.num_doubled;
      differences.lines.push_back(Describe(result) + ": stored twice");
      continue;
    }
    const auto it = missing.find(NameOf(result));
    if (it == missing.end()) {
      ++differences.num_added;
      differences.lines.push_back(Describe(result) + ": nobody asked for it");
      continue;
    }
    if (const auto altered = WhatIsAltered(*it->second, result)) {
      ++differences.num_altered;
      differences.lines.push_back(Describe(result) + ": " + *altered);
    }
    missing.erase(it);
  }
  for (const auto& [name, result] : missing) {
    ++differences.num_lost;
    differences.lines.push_back(Describe(*result) + ": lost");
  }
  return differences;
}

}  // namespace assay::chaos
