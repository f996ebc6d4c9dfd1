#include "cli/session.h"

#include <unistd.h>

#include <cstdio>

#include "base/status.h"
#include "cli/terminal.h"

namespace assay::cli {

absl::StatusOr<std::unique_ptr<Client>> Session::Connect() const {
  return Client::Create({.address = coordinator});
}

void SetAction(CLI::App* command, Session* session, std::function<absl::StatusOr<int>()> action) {
  command->callback([session, action = std::move(action)] { session->action = action; });
}

void AddCoordinatorOption(CLI::App* command, Session* session) {
  command
      ->add_option("--coordinator", session->coordinator,
                   "Address of the coordinator [127.0.0.1:7350]")
      ->check(CLI::Validator([](std::string& value) { return Message(CheckAddress(value)); }, ""))
      ->type_name("HOST:PORT")
      ->envname("ASSAY_COORDINATOR");
}

void AddJsonOption(CLI::App* command, Session* session) {
  command->add_flag("--json", session->json, "Print JSON: one object a line");
}

void AddFormatOption(CLI::App* command, std::string* name, std::vector<std::string> allowed) {
  command->add_option("-o,--output", *name, "Format of the output")
      ->check(CLI::IsMember(std::move(allowed)))
      ->type_name("FORMAT")
      ->capture_default_str();
}

Format ParseFormat(const std::string& name) {
  if (name == "csv") return Format::kCsv;
  if (name == "json") return Format::kJson;
  if (name == "md") return Format::kMarkdown;
  return Format::kTable;
}

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void PrintLine(std::string_view line) {
  Print(line);
  Print("\n");
}

void PrintTable(const Table& table) { Print(table.Text(StdoutStyle(), TableWidth(STDOUT_FILENO))); }

Style StdoutStyle() { return Style(WantsColour(STDOUT_FILENO)); }
Style StderrStyle() { return Style(WantsColour(STDERR_FILENO)); }

}  // namespace assay::cli
