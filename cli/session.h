// What the commands of one run share: the options that many of them have, the action that the
// command line chose, and the way to stdout and stderr.
//
// Results go to stdout, talk for people to stderr; `--json` writes one JSON object a line.
#pragma once

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cli/client.h"
#include "cli/output/style.h"
#include "cli/output/table.h"

namespace assay::cli {

struct Session {
  std::string coordinator = "127.0.0.1:7350";
  std::string tls_ca;      // path of the authority; empty: no TLS
  std::string token_file;  // empty: $ASSAY_TOKEN, or ~/.config/assay/token when it is there
  bool json = false;
  // Set by the subcommand that was parsed. Returns the exit code, or an error to print.
  std::function<absl::StatusOr<int>()> action;

  absl::StatusOr<std::unique_ptr<Client>> Connect() const;
};

// A leaf of the tree: `command` runs `action` when it was chosen. It gets --json when `has_json`.
void SetAction(CLI::App* command, Session* session, std::function<absl::StatusOr<int>()> action);
void AddCoordinatorOption(CLI::App* command, Session* session);
void AddJsonOption(CLI::App* command, Session* session);

// What a table is printed as.
enum class Format { kTable, kCsv, kJson, kMarkdown };
// -o NAME, of the names in `allowed` ("table", "csv", "json", "md").
void AddFormatOption(CLI::App* command, std::string* name, std::vector<std::string> allowed);
Format ParseFormat(const std::string& name);

// To stdout.
void Print(std::string_view text);
// A line to stdout.
void PrintLine(std::string_view line);
// The table, as wide as the terminal.
void PrintTable(const Table& table);

// A line of talk to stderr.
template <typename... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  fmt::print(stderr, "{}\n", fmt::format(format, std::forward<Args>(args)...));
}

// Whether stdout, or stderr, is coloured.
Style StdoutStyle();
Style StderrStyle();

}  // namespace assay::cli
