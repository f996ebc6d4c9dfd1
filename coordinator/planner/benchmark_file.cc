#include "coordinator/planner/benchmark_file.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <map>
#include <set>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "coordinator/planner/json_lines.h"
#include "coordinator/spec/benchmark_registry.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxItemNameBytes = 200;

// One pass, so that a question that itself says "{question}" is left alone.
std::string FillPrompt(const std::string& prompt, const std::string& question) {
  constexpr std::string_view kPlaceholder = "{question}";
  std::string text;
  size_t at = 0;
  while (true) {
    const size_t next = prompt.find(kPlaceholder, at);
    text.append(prompt, at, next == std::string::npos ? next : next - at);
    if (next == std::string::npos) return text;
    text += question;
    at = next + kPlaceholder.size();
  }
}

// Where a benchmark's file may be, as paths below a root.
std::vector<std::string> Candidates(const BenchmarkSpec& spec) {
  if (!spec.path.empty()) return {spec.path};
  std::vector<std::string> candidates;
  if (const BenchmarkDefinition* definition = FindBenchmarkDefinition(spec.name)) {
    candidates.push_back(definition->file);
  }
  candidates.push_back(spec.name + ".jsonl");
  return candidates;
}

}  // namespace

absl::StatusOr<std::vector<BenchmarkItem>> ParseBenchmarkJsonl(std::string_view jsonl,
                                                               const std::string& file_name) {
  static const std::vector<std::string> kFields = {"id", "question", "answer", "level", "subject"};
  std::vector<BenchmarkItem> items;
  std::map<std::string, std::string> where_of_name;
  const auto add = [&](JsonRecord record, const std::string& where) -> absl::Status {
    for (const size_t required : {0, 1, 2}) {
      if (record.fields[required].empty()) {
        return InvalidArgument("{}: field '{}' is missing or empty", where, kFields[required]);
      }
    }
    BenchmarkItem item{std::move(record.fields[0]), std::move(record.fields[1]),
                       std::move(record.fields[2]), std::move(record.fields[3]),
                       std::move(record.fields[4])};
    if (item.name.size() > kMaxItemNameBytes) {
      return InvalidArgument("{}: field 'id' has {} bytes; at most {} are allowed", where,
                             item.name.size(), kMaxItemNameBytes);
    }
    const auto [first, is_new] = where_of_name.emplace(item.name, where);
    if (!is_new) {
      return InvalidArgument("{}: id '{}' stands at {} already", where, item.name, first->second);
    }
    if (items.size() == static_cast<size_t>(kMaxBenchmarkItems)) {
      return InvalidArgument("{}: more than {} items", where, kMaxBenchmarkItems);
    }
    items.push_back(std::move(item));
    return absl::OkStatus();
  };
  ASSAY_RETURN_IF_ERROR(ForEachJsonLine(jsonl, file_name, kFields, add));
  if (items.empty()) return InvalidArgument("{}: no items in it", file_name);
  return items;
}

absl::StatusOr<std::vector<BenchmarkItem>> LoadBenchmark(const std::vector<std::string>& roots,
                                                         const BenchmarkSpec& spec) {
  const std::vector<std::string> candidates = Candidates(spec);
  std::string path;
  if (std::filesystem::path(spec.path).is_absolute()) {
    path = spec.path;
  } else {
    for (const std::string& candidate : candidates) {
      if (path.empty()) path = FindUnderRoots(roots, candidate);
    }
  }
  if (path.empty()) {
    return NotFound(
        "benchmark '{}': no {} under {}; add its root with --benchmarks", spec.name,
        fmt::join(candidates, " or "),
        roots.empty() ? "(no benchmark roots)" : fmt::format("{}", fmt::join(roots, ", ")));
  }
  absl::StatusOr<std::string> content = ReadFile(path, kMaxBenchmarkBytes);
  if (!content.ok()) {
    return Annotate(content.status(), fmt::format("benchmark '{}'", spec.name));
  }
  return ParseBenchmarkJsonl(*content, path);
}

std::vector<BenchmarkItem> SelectItems(std::vector<BenchmarkItem> items, int32_t limit,
                                       int32_t per_level) {
  std::vector<BenchmarkItem> selected;
  std::map<std::string, int32_t> taken;
  for (BenchmarkItem& item : items) {
    if (limit > 0 && selected.size() == static_cast<size_t>(limit)) break;
    if (per_level > 0 && ++taken[item.level] > per_level) continue;
    selected.push_back(std::move(item));
  }
  return selected;
}

PlannedBenchmark MakeBenchmark(const BenchmarkSpec& spec, const std::vector<BenchmarkItem>& items) {
  PlannedBenchmark planned;
  planned.benchmark.name = spec.name;
  planned.benchmark.prompt_version = PromptVersion(spec.prompt);
  planned.benchmark.grader = spec.grader;
  planned.benchmark.num_items = static_cast<int32_t>(items.size());

  Sha256 version;
  version.UpdateField("assay-benchmark-1");
  version.UpdateField(spec.name);
  version.UpdateField(spec.prompt);
  version.UpdateField(spec.grader);
  planned.items.reserve(items.size());
  for (const BenchmarkItem& item : items) {
    for (const std::string* field :
         {&item.name, &item.question, &item.answer, &item.level, &item.subject}) {
      version.UpdateField(*field);
    }
    storage::ItemRecord record;
    record.item_index = static_cast<int32_t>(planned.items.size());
    record.name = item.name;
    record.question = item.question;
    record.user_text = FillPrompt(spec.prompt, item.question);
    record.gold = item.answer;
    record.level = item.level;
    record.subject = item.subject;
    planned.items.push_back(std::move(record));
  }
  planned.benchmark.version_hash = version.HexDigest();
  return planned;
}

}  // namespace assay::coordinator
