// A table of text: laid out for a terminal, or written as CSV or Markdown.
//
// Not thread-safe. Cells hold raw text; each way of writing escapes what it must.
#pragma once

#include <string>
#include <vector>

#include "cli/output/style.h"

namespace assay::cli {

enum class Align { kLeft, kRight };

struct Column {
  std::string title;
  Align align = Align::kLeft;
  bool flexible = false;  // gives way first, by truncation, when the terminal is too narrow
};

struct Cell {
  Cell(std::string cell_text, Colour cell_colour = Colour::kNone)  // NOLINT: converts on purpose
      : text(std::move(cell_text)), colour(cell_colour) {}
  Cell(const char* cell_text) : text(cell_text) {}  // NOLINT

  std::string text;
  Colour colour = Colour::kNone;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as columns.
  void AddRow(std::vector<Cell> cells);

  bool empty() const { return rows_.empty(); }

  // Lines with two spaces between columns, a bold title line and a rule under it. Control
  // characters are escaped. `max_width` > 0 truncates flexible columns so that lines fit, as far as
  // possible.
  std::vector<std::string> Lines(const Style& style, int max_width = 0) const;

  // The lines, each ended by a newline.
  std::string Text(const Style& style, int max_width = 0) const;

  // RFC 4180 with plain newlines: quotes where a comma, quote or line break demands them.
  std::string Csv() const;

  // GitHub's table, columns padded so that the source reads as a table too.
  std::string Markdown() const;

 private:
  std::vector<int> Widths(int max_width) const;

  const std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace assay::cli
