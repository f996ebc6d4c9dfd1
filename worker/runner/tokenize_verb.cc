#include <istream>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

#include "base/exit_codes.h"
#include "base/status.h"
#include "engine/tokenizer/tokenizer.h"
#include "worker/runner/verb_errors.h"
#include "worker/runner/verbs.h"

namespace assay::worker {
namespace {

using nlohmann::json;

absl::StatusOr<std::string> ParseText(const std::string& line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument("not a JSON object");
  const auto text = object.find("text");
  if (text == object.end()) return InvalidArgument("the field \"text\" is missing");
  if (!text->is_string()) {
    return InvalidArgument("\"text\" must be a string, not {}", text->type_name());
  }
  return text->get<std::string>();
}

}  // namespace

int Tokenize(const std::string& model_dir, bool add_special_tokens, std::istream& in,
             std::ostream& out) {
  const absl::Status folder = CheckModelFolder(model_dir, "tokenizer.json");
  if (!folder.ok()) return FailVerb(folder);
  const absl::StatusOr<std::unique_ptr<engine::Tokenizer>> tokenizer =
      engine::Tokenizer::Load(model_dir);
  if (!tokenizer.ok()) return FailVerb(tokenizer.status());
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const absl::StatusOr<std::string> text = ParseText(line);
    if (!text.ok()) {
      out.flush();
      return FailLine(number, Message(text.status()));
    }
    out << json{{"ids", (*tokenizer)->Encode(*text, add_special_tokens)}}.dump() << "\n";
  }
  out.flush();
  return kExitOk;
}

}  // namespace assay::worker
