#include "cli/sample_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

// How much of the common beginning is shown before the two answers part.
constexpr size_t kContextBytes = 240;
constexpr int kNarrowestHalf = 36;
constexpr int kDefaultWidth = 120;

std::string Heading(const std::string& title, const Style& style) {
  return "\n" + style(Colour::kBold, "--- " + title) + "\n";
}

std::string Block(const std::string& text) {
  std::string block = SanitizeText(text);
  if (!block.ends_with('\n')) block += '\n';
  return block;
}

std::string Fact(const std::string& name, const std::string& value) {
  return PadRight(name, 12) + SanitizeLine(value) + "\n";
}

std::string CellText(const v1::SampleSummary& s) {
  return fmt::format("{} (cell {}: {} {} {})", s.benchmark(), s.cell_id(), s.model(), s.method(),
                     s.bits());
}

std::string GradeText(const v1::Grade& grade, const std::string& gold) {
  std::string text = VerdictText(grade);
  if (!grade.grader().empty()) {
    text += fmt::format(" by {} {}", grade.grader(), grade.grader_version());
  }
  if (!grade.extracted().empty()) text += fmt::format(": answered {}", grade.extracted());
  text += fmt::format("; gold {}", gold);
  if (!grade.detail().empty()) text += fmt::format(" ({})", grade.detail());
  return text;
}

std::string LengthText(const v1::SampleSummary& s) {
  std::string text = fmt::format("{} tokens", FormatCount(s.completion_tokens()));
  if (s.thinking_tokens() >= 0) {
    text += fmt::format(" ({} of thinking)", FormatCount(s.thinking_tokens()));
  }
  return fmt::format("{}, ended by {}, prompt of {}", text, FinishText(s.finish_reason()),
                     FormatCount(s.prompt_tokens()));
}

std::string TimesText(const v1::GetSampleResponse& sample) {
  const v1::SampleSummary& s = sample.summary();
  const int64_t decode_us = s.e2e_us() - s.ttft_us();
  std::string text =
      fmt::format("queue {}, first token {}, all {}", FormatLatency(sample.queue_us()),
                  FormatLatency(s.ttft_us()), FormatLatency(s.e2e_us()));
  if (s.completion_tokens() > 1 && decode_us > 0) {
    text += fmt::format(", {} per token", FormatLatency(decode_us / (s.completion_tokens() - 1)));
  }
  return fmt::format("{}, mean batch size {:.1f}", text, sample.mean_batch_size());
}

std::string ProvenanceText(const v1::GetSampleResponse& sample) {
  const v1::Provenance& p = sample.provenance();
  return fmt::format("assay {} ({}, {}), engine numerics {}", p.assay_version(), p.git_commit(),
                     p.build_type(), p.engine_numerics_version());
}

std::string MachineText(const v1::GetSampleResponse& sample) {
  const v1::Provenance& p = sample.provenance();
  std::string text =
      fmt::format("worker {} on {}, {}", sample.worker_id(), p.hostname(), p.device());
  if (!p.backend().empty()) text += ", " + p.backend();
  if (!p.driver_versions().empty()) text += ", " + p.driver_versions();
  return text;
}

// The length of the common beginning, cut back to the start of a character.
size_t CommonPrefix(const std::string& a, const std::string& b) {
  const auto [end_a, end_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  size_t length = static_cast<size_t>(end_a - a.begin());
  const auto continues = [&](const std::string& text) {
    return length < text.size() && (static_cast<unsigned char>(text[length]) & 0xc0) == 0x80;
  };
  while (length > 0 && (continues(a) || continues(b))) --length;
  return length;
}

// The last part of the common beginning, from a line's start where there is one.
std::string CommonTail(const std::string& text, size_t common) {
  size_t start = common > kContextBytes ? common - kContextBytes : 0;
  if (start > 0) {
    const size_t line = text.find('\n', start);
    if (line != std::string::npos && line < common) start = line + 1;
    while (start < common && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) ++start;
  }
  const std::string tail = SanitizeText(text.substr(start, common - start));
  return start > 0 ? fmt::format("[... {} equal bytes ...]\n{}", start, tail) : tail;
}

std::string SideBySide(const std::string& left, const std::string& right, int half) {
  const std::vector<std::string> lines_left = Wrap(left, half);
  const std::vector<std::string> lines_right = Wrap(right, half);
  std::string text;
  for (size_t i = 0; i < std::max(lines_left.size(), lines_right.size()); ++i) {
    std::string line = PadRight(i < lines_left.size() ? lines_left[i] : "", half) + " | " +
                       (i < lines_right.size() ? lines_right[i] : "");
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string DiffHead(const std::string& side, const v1::GetSampleResponse& sample,
                     const Style& style) {
  const v1::SampleSummary& s = sample.summary();
  return fmt::format(
      "{} sample {}, {} {} {} (cell {}): {}, {}\n", style(Colour::kBold, side), s.sample_id(),
      SanitizeLine(s.model()), SanitizeLine(s.method()), SanitizeLine(s.bits()), s.cell_id(),
      style(ColourOfVerdict(s.grade()), SanitizeLine(GradeText(s.grade(), sample.gold()))),
      LengthText(s));
}

}  // namespace

std::string VerdictText(const v1::Grade& grade) {
  if (grade.verdict() == v1::Grade::VERDICT_UNSPECIFIED) return "ungraded";
  std::string name = EnumName(v1::Grade::Verdict_descriptor(), grade.verdict());
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

Colour ColourOfVerdict(const v1::Grade& grade) {
  switch (grade.verdict()) {
    case v1::Grade::VERDICT_CORRECT:
      return Colour::kGreen;
    case v1::Grade::VERDICT_WRONG:
    case v1::Grade::VERDICT_NO_ANSWER:
      return Colour::kRed;
    default:
      return Colour::kYellow;
  }
}

std::string FinishText(v1::FinishReason reason) {
  return EnumName(v1::FinishReason_descriptor(), reason);
}

Table SampleTable(const google::protobuf::RepeatedPtrField<v1::SampleSummary>& samples) {
  Table table({{"sample", Align::kRight},
               {"cell", Align::kRight},
               {"model", Align::kLeft, true},
               {"method", Align::kLeft, true},
               {"bits"},
               {"item", Align::kLeft, true},
               {"repeat", Align::kRight},
               {"level"},
               {"verdict"},
               {"answer", Align::kLeft, true},
               {"finish"},
               {"tokens", Align::kRight},
               {"time", Align::kRight}});
  for (const v1::SampleSummary& s : samples) {
    table.AddRow({fmt::format("{}", s.sample_id()),
                  fmt::format("{}", s.cell_id()),
                  s.model(),
                  s.method(),
                  s.bits(),
                  s.item(),
                  fmt::format("{}", s.repeat()),
                  s.level(),
                  {VerdictText(s.grade()), ColourOfVerdict(s.grade())},
                  s.grade().extracted(),
                  FinishText(s.finish_reason()),
                  FormatCount(s.completion_tokens()),
                  FormatLatency(s.e2e_us())});
  }
  return table;
}

std::string SampleText(const v1::GetSampleResponse& sample, const Style& style) {
  const v1::SampleSummary& s = sample.summary();
  std::string text;
  text += Fact("sample", fmt::format("{}", s.sample_id()));
  text += Fact("item", fmt::format("{}, repeat {}{}", s.item(), s.repeat(),
                                   s.level().empty() ? "" : ", level " + s.level()));
  text += Fact("of", CellText(s));
  const auto verdict = [&](const v1::Grade& grade) {
    text += PadRight("grade", 12) +
            style(ColourOfVerdict(grade), SanitizeLine(GradeText(grade, sample.gold()))) + "\n";
  };
  for (const v1::Grade& grade : sample.grades()) verdict(grade);
  if (sample.grades().empty()) verdict(s.grade());
  text += Fact("length", LengthText(s));
  text += Fact("times", TimesText(sample));
  text += Fact("seed", fmt::format("{}, epoch {}", sample.seed(), sample.epoch()));
  text += Fact("made by", MachineText(sample));
  text += Fact("with", ProvenanceText(sample));
  text += Fact("finished", FormatTime(sample.finished_time_us()));
  text += Heading("question", style) + Block(sample.question());
  text += Heading("prompt", style) + Block(sample.user_text());
  text += Heading("answer", style) + Block(sample.text());
  return text;
}

int64_t FirstDifferentToken(const v1::GetSampleResponse& left, const v1::GetSampleResponse& right) {
  const auto& a = left.token_ids();
  const auto& b = right.token_ids();
  const auto [end_a, end_b] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (end_a == a.end() && end_b == b.end()) return -1;
  return end_a - a.begin();
}

std::string DiffText(const v1::GetSampleResponse& left, const v1::GetSampleResponse& right,
                     int width, const Style& style) {
  std::string text = fmt::format("item  {}, repeat {}\n", SanitizeLine(left.summary().item()),
                                 left.summary().repeat());
  text += DiffHead("A", left, style) + DiffHead("B", right, style);
  const int64_t token = FirstDifferentToken(left, right);
  if (token < 0) return text + "\nThe two answers are equal, token for token.\n";
  text += fmt::format("\nThe first {} equal; they part at token {}.\n",
                      token == 1 ? "token is" : fmt::format("{} tokens are", token), token);
  const size_t common = CommonPrefix(left.text(), right.text());
  if (common > 0) {
    text += Heading("common", style) + CommonTail(left.text(), common);
    if (!text.ends_with('\n')) text += '\n';
  }
  const std::string rest_left = SanitizeText(left.text().substr(common));
  const std::string rest_right = SanitizeText(right.text().substr(common));
  const int half = ((width > 0 ? width : kDefaultWidth) - 3) / 2;
  if (half < kNarrowestHalf) {
    return text + Heading("A", style) + Block(rest_left) + Heading("B", style) + Block(rest_right);
  }
  text += Heading(PadRight("A", half - 4) + " | B", style);
  return text + SideBySide(rest_left, rest_right, half);
}

}  // namespace assay::cli
