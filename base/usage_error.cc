#include "base/usage_error.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/exit_codes.h"
#include "base/names.h"

namespace assay {
namespace {

std::vector<std::string> NamesUnder(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!command->get_name().empty()) names.push_back(command->get_name());
  }
  return names;
}

// Whether the word behind this flag is its value.
bool TakesNextWord(const CLI::App& command, const std::string& flag) {
  for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
    const CLI::Option* option = app->get_option_no_throw(flag);
    if (option != nullptr) return option->get_items_expected_max() > 0;
  }
  return false;
}

// The deepest command that the arguments name, and the first word after it that should have been a
// command and is none (empty when there is no such word).
struct Named {
  const CLI::App* command;
  std::string path;
  std::string unknown;
};

Named FindCommand(const CLI::App& app, int argc, const char* const* argv) {
  Named named{&app, app.get_name(), ""};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const std::vector<std::string> names = NamesUnder(*named.command);
    if (names.empty()) break;
    if (word.starts_with('-')) {
      i += TakesNextWord(*named.command, word) ? 1 : 0;
      continue;
    }
    if (std::find(names.begin(), names.end(), word) == names.end()) {
      if (named.command->get_require_subcommand_min() > 0) named.unknown = word;
      break;
    }
    named.command = named.command->get_subcommand(word);
    named.path += " " + word;
  }
  return named;
}

std::vector<std::string> LongFlagsOf(const CLI::App& command) {
  std::vector<std::string> flags;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) flags.push_back("--" + name);
  }
  return flags;
}

// What the first unknown flag may have meant.
std::string Suggestion(const CLI::App& command, int argc, const char* const* argv) {
  const std::vector<std::string> flags = LongFlagsOf(command);
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    if (!flag.starts_with("--")) continue;
    flag = flag.substr(0, flag.find('='));
    if (std::find(flags.begin(), flags.end(), flag) != flags.end()) continue;
    const std::string suggestion = DidYouMean(flag, flags);
    if (!suggestion.empty()) return suggestion;
  }
  return "";
}

}  // namespace

std::string DescribeUsageError(const CLI::App& app, const CLI::ParseError& error, int argc,
                               const char* const* argv) {
  const Named named = FindCommand(app, argc, argv);
  const std::vector<std::string> names = NamesUnder(*named.command);
  const bool has_extras = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
  if (!named.unknown.empty()) {
    return fmt::format("'{} {}' is no command{}; the commands are {}", named.path, named.unknown,
                       DidYouMean(named.unknown, names), fmt::join(names, ", "));
  }
  if (named.command->get_require_subcommand_min() > 0 && !has_extras) {
    return fmt::format("'{}' needs a command: {}", named.path, fmt::join(names, ", "));
  }
  std::string what = error.what();
  if (dynamic_cast<const CLI::ConversionError*>(&error) != nullptr) what += ": not a number";
  while (!what.empty() && (what.back() == '\n' || what.back() == '.')) what.pop_back();
  return fmt::format("{}{}; see `{} --help`", what,
                     has_extras ? Suggestion(*named.command, argc, argv) : "", named.path);
}

int EndParsing(const CLI::App& app, const CLI::ParseError& error, int argc,
               const char* const* argv) {
  if (error.get_exit_code() == 0) return app.exit(error);
  fmt::print(stderr, "{}: {}\n", app.get_name(), DescribeUsageError(app, error, argc, argv));
  return kExitUsage;
}

}  // namespace assay
