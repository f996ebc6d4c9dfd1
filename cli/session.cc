#include "cli/session.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

#include "base/file.h"
#include "base/status.h"
#include "cli/terminal.h"

namespace assay::cli {

namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;

std::string DefaultTokenFile() {
  if (const char* config = std::getenv("XDG_CONFIG_HOME"); config != nullptr && *config != '\0') {
    return std::string(config) + "/assay/token";
  }
  const char* home = std::getenv("HOME");
  return home == nullptr ? "" : std::string(home) + "/.config/assay/token";
}

// A token becomes a header: no blanks at its end, and nothing odd in it.
absl::StatusOr<std::string> CheckToken(std::string token, const std::string& source) {
  while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back())) != 0) {
    token.pop_back();
  }
  const bool plain = std::all_of(token.begin(), token.end(),
                                 [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  if (token.empty() || !plain) return InvalidArgument("{}: holds no token", source);
  return token;
}

// A token never comes by a flag: everybody on the machine could read it in the list of processes.
absl::StatusOr<std::string> ReadToken(const std::string& named_file) {
  std::string path = named_file;
  if (path.empty()) {
    if (const char* token = std::getenv("ASSAY_TOKEN"); token != nullptr) {
      return CheckToken(token, "ASSAY_TOKEN");
    }
    path = DefaultTokenFile();
    // Without one the coordinator says what to do.
    if (::access(path.c_str(), F_OK) != 0) return "";
  }
  ASSAY_ASSIGN_OR_RETURN(std::string token, ReadSecretFile(path));
  return CheckToken(std::move(token), path);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Session::Connect() const {
  Client::Options options{.address = coordinator};
  if (!tls_ca.empty()) {
    ASSAY_ASSIGN_OR_RETURN(options.tls_ca, ReadFile(tls_ca, kMaxPemBytes));
    if (options.tls_ca.find("-----BEGIN CERTIFICATE") == std::string::npos) {
      return InvalidArgument("--tls-ca {}: holds no certificate in PEM form", tls_ca);
    }
    ASSAY_ASSIGN_OR_RETURN(options.token, ReadToken(token_file));
  }
  return Client::Create(std::move(options));
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
  command->add_option("--tls-ca", session->tls_ca, "Authority of the coordinator: use TLS")
      ->type_name("FILE")
      ->envname("ASSAY_TLS_CA");
  command
      ->add_option("--token-file", session->token_file,
                   "Your token [$ASSAY_TOKEN, ~/.config/assay/token]")
      ->type_name("FILE");
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
