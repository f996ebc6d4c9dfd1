#include "cli/query_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/output/json.h"
#include "cli/output/text.h"
#include "cli/session.h"
#include "cli/terminal.h"

namespace assay::cli {
namespace {

using Json = nlohmann::ordered_json;
using storage::sqlite::BlobValue;
using storage::sqlite::QueryValue;

std::string Hexadecimal(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02X}", static_cast<unsigned char>(c));
  return hex;
}

std::string ValueText(const QueryValue& value, const char* null) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) return fmt::format("{}", *real);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* blob = std::get_if<BlobValue>(&value)) return Hexadecimal(blob->bytes);
  return null;
}

Json ValueJson(const QueryValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* blob = std::get_if<BlobValue>(&value)) return Hexadecimal(blob->bytes);
  return nullptr;
}

bool IsNumber(const QueryValue& value) {
  return std::holds_alternative<int64_t>(value) || std::holds_alternative<double>(value);
}

std::vector<std::string> UniqueNames(const std::vector<std::string>& names) {
  std::vector<std::string> unique;
  std::set<std::string> taken;
  for (const std::string& name : names) {
    std::string candidate = name;
    for (int i = 2; !taken.insert(candidate).second; ++i) candidate = fmt::format("{}_{}", name, i);
    unique.push_back(std::move(candidate));
  }
  return unique;
}

void PrintCsvRow(const std::vector<std::string>& fields) {
  std::vector<Column> columns;
  for (const std::string& field : fields) {
    columns.push_back({IsTerminal(STDOUT_FILENO) ? SanitizeLine(field) : field});
  }
  Print(Table(std::move(columns)).Csv());  // a table of a title line is one line of CSV
}

}  // namespace

void QueryOutput::Begin(const std::vector<std::string>& columns) {
  columns_ = UniqueNames(columns);
  if (format_ == QueryFormat::kCsv) PrintCsvRow(columns);
  if (format_ == QueryFormat::kJsonArray) Print("[");
}

void QueryOutput::AddRow(const std::vector<QueryValue>& values) {
  switch (format_) {
    case QueryFormat::kTable: {
      if (!table_) {
        // The first row decides the alignment: SQLite's columns have no types.
        std::vector<Column> columns;
        for (size_t i = 0; i < columns_.size(); ++i) {
          columns.push_back({columns_[i], IsNumber(values[i]) ? Align::kRight : Align::kLeft});
        }
        table_.emplace(std::move(columns));
      }
      std::vector<Cell> cells;
      for (const QueryValue& value : values) cells.emplace_back(ValueText(value, "NULL"));
      table_->AddRow(std::move(cells));
      break;
    }
    case QueryFormat::kCsv: {
      std::vector<std::string> fields;
      for (const QueryValue& value : values) fields.push_back(ValueText(value, ""));
      PrintCsvRow(fields);
      break;
    }
    case QueryFormat::kJsonArray:
    case QueryFormat::kJsonLines: {
      Json object = Json::object();
      for (size_t i = 0; i < columns_.size(); ++i) object[columns_[i]] = ValueJson(values[i]);
      const std::string line =
          EscapeInvisible(object.dump(-1, ' ', false, Json::error_handler_t::replace));
      if (format_ == QueryFormat::kJsonArray) Print(num_rows_ == 0 ? "\n" : ",\n");
      Print(line);
      if (format_ == QueryFormat::kJsonLines) Print("\n");
      break;
    }
  }
  ++num_rows_;
}

void QueryOutput::End(bool truncated) {
  truncated_ = truncated;
  if (format_ == QueryFormat::kJsonArray) Print(num_rows_ == 0 ? "]\n" : "\n]\n");
  if (format_ != QueryFormat::kTable) return;
  if (!table_) {
    std::vector<Column> columns;
    for (const std::string& name : columns_) columns.push_back({name});
    table_.emplace(std::move(columns));
  }
  PrintTable(*table_);
}

}  // namespace assay::cli
