#include "cli/output/table.h"

#include <algorithm>
#include <numeric>

#include "base/status.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

constexpr int kGap = 2;
constexpr int kNarrowestFlexible = 8;

std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

std::string MarkdownField(const std::string& text) {
  std::string escaped;
  for (const char c : SanitizeLine(text)) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string Pad(const std::string& text, int width, Align align) {
  return align == Align::kRight ? PadLeft(text, width) : PadRight(text, width);
}

void TrimRight(std::string& line) { line.erase(line.find_last_not_of(' ') + 1); }

}  // namespace

void Table::AddRow(std::vector<Cell> cells) {
  ASSAY_CHECK(cells.size() == columns_.size(), "{} cells in a table of {} columns", cells.size(),
              columns_.size());
  rows_.push_back(std::move(cells));
}

std::vector<int> Table::Widths(int max_width) const {
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    int width = DisplayWidth(columns_[i].title);
    for (const auto& row : rows_) {
      width = std::max(width, DisplayWidth(SanitizeLine(row[i].text)));
    }
    widths.push_back(width);
  }
  if (max_width <= 0) return widths;
  int excess = std::accumulate(widths.begin(), widths.end(), 0) +
               kGap * static_cast<int>(columns_.size() - 1) - max_width;
  for (size_t i = columns_.size(); i-- > 0 && excess > 0;) {
    if (!columns_[i].flexible) continue;
    const int gives = std::clamp(widths[i] - kNarrowestFlexible, 0, excess);
    widths[i] -= gives;
    excess -= gives;
  }
  return widths;
}

std::vector<std::string> Table::Lines(const Style& style, int max_width) const {
  const std::vector<int> widths = Widths(max_width);
  const std::string gap(kGap, ' ');
  std::vector<std::string> lines(2);
  for (size_t i = 0; i < columns_.size(); ++i) {
    const bool last = i + 1 == columns_.size();
    lines[0] += Pad(Truncate(columns_[i].title, widths[i]), widths[i], columns_[i].align);
    lines[1] += std::string(static_cast<size_t>(widths[i]), '-');
    if (!last) lines[0] += gap, lines[1] += gap;
  }
  TrimRight(lines[0]);
  lines[0] = style(Colour::kBold, lines[0]);
  lines[1] = style(Colour::kDim, lines[1]);
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string text = Truncate(SanitizeLine(row[i].text), widths[i]);
      line += Pad(style(row[i].colour, text), widths[i], columns_[i].align);
      if (i + 1 < columns_.size()) line += gap;
    }
    TrimRight(line);
    lines.push_back(std::move(line));
  }
  return lines;
}

std::string Table::Text(const Style& style, int max_width) const {
  std::string text;
  for (const std::string& line : Lines(style, max_width)) text += line + "\n";
  return text;
}

std::string Table::Csv() const {
  std::string csv;
  for (size_t i = 0; i < columns_.size(); ++i) {
    csv += (i == 0 ? "" : ",") + CsvField(columns_[i].title);
  }
  csv += "\n";
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) csv += (i == 0 ? "" : ",") + CsvField(row[i].text);
    csv += "\n";
  }
  return csv;
}

std::string Table::Markdown() const {
  std::vector<int> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    int width = std::max(3, DisplayWidth(MarkdownField(columns_[i].title)));
    for (const auto& row : rows_) {
      width = std::max(width, DisplayWidth(MarkdownField(row[i].text)));
    }
    widths.push_back(width);
  }
  std::string header = "|";
  std::string rule = "|";
  for (size_t i = 0; i < columns_.size(); ++i) {
    const bool right = columns_[i].align == Align::kRight;
    header += " " + Pad(MarkdownField(columns_[i].title), widths[i], columns_[i].align) + " |";
    rule += " " + std::string(static_cast<size_t>(widths[i] - (right ? 1 : 0)), '-') +
            (right ? ": |" : " |");
  }
  std::string text = header + "\n" + rule + "\n";
  for (const auto& row : rows_) {
    text += "|";
    for (size_t i = 0; i < columns_.size(); ++i) {
      text += " " + Pad(MarkdownField(row[i].text), widths[i], columns_[i].align) + " |";
    }
    text += "\n";
  }
  return text;
}

}  // namespace assay::cli
