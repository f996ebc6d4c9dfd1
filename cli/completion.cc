#include "cli/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace assay::cli {
namespace {

// What a command's positional arguments are: it decides what TAB offers for them.
enum class Argument { kNone, kFile, kSweep, kWorker };

struct Flag {
  std::string name;  // "--json", "-o"
  std::string description;
  std::vector<std::string> values;  // of a flag that has a list of them
  bool takes_value = false;
  bool takes_file = false;
};

struct Command {
  std::string path;  // "sweep submit"; empty for the program itself
  std::string description;
  std::vector<std::string> subcommands;
  std::vector<Flag> flags;
  Argument argument = Argument::kNone;
};

// "FORMAT:{table,csv}" as {"table", "csv"}.
std::vector<std::string> ValuesOf(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find('{');
  const size_t close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

bool TakesFile(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  return type.starts_with("FILE") || type.starts_with("DIR");
}

Argument ArgumentOf(const CLI::Option& option) {
  const std::string name = option.get_name(true);
  if (name == "SWEEP") return Argument::kSweep;
  if (name == "WORKER") return Argument::kWorker;
  if (name == "SPEC" || name == "MODEL" || name == "FILE") return Argument::kFile;
  return Argument::kNone;
}

void AddOptions(const CLI::App& app, Command* command) {
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      if (command->argument == Argument::kNone) command->argument = ArgumentOf(*option);
      continue;
    }
    Flag flag;
    flag.description = option->get_description();
    flag.values = ValuesOf(*option);
    flag.takes_value = option->get_items_expected_max() > 0;
    flag.takes_file = TakesFile(*option);
    for (const std::string& name : option->get_lnames()) {
      flag.name = "--" + name;
      command->flags.push_back(flag);
    }
    for (const std::string& name : option->get_snames()) {
      flag.name = "-" + name;
      command->flags.push_back(flag);
    }
  }
}

void Collect(const CLI::App& app, const std::string& path, std::vector<Command>* commands) {
  Command command;
  command.path = path;
  command.description = app.get_description();
  AddOptions(app, &command);
  std::vector<const CLI::App*> children;
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    command.subcommands.push_back(child->get_name());
    children.push_back(child);
  }
  commands->push_back(std::move(command));
  for (const CLI::App* child : children) {
    Collect(*child, path.empty() ? child->get_name() : path + " " + child->get_name(), commands);
  }
}

// `text` within single quotes of a shell; `escape` is how that shell writes a quote there.
std::string Quote(const std::string& text, const std::string& escape) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? escape : std::string(1, c);
  return quoted + "'";
}

std::string Words(const Command& command) {
  std::vector<std::string> words = command.subcommands;
  for (const Flag& flag : command.flags) words.push_back(flag.name);
  return fmt::format("{}", fmt::join(words, " "));
}

std::string ArgumentWord(Argument argument) {
  switch (argument) {
    case Argument::kFile:
      return "file";
    case Argument::kSweep:
      return "sweep";
    case Argument::kWorker:
      return "worker";
    case Argument::kNone:
      break;
  }
  return "none";
}

// Bash and zsh have the same three case lists: the words of a command, the values of its flags and
// the kind of its arguments. Only the way to hand words to the shell differs.
std::string CaseLists(const std::vector<Command>& commands) {
  std::string words = "  case \"$at\" in\n";
  std::string values = "  case \"$at $previous\" in\n";
  std::string kinds = "  case \"$at\" in\n";
  for (const Command& command : commands) {
    words += fmt::format("    '{}') offer='{}' ;;\n", command.path, Words(command));
    if (command.argument != Argument::kNone) {
      kinds += fmt::format("    '{}') kind={} ;;\n", command.path, ArgumentWord(command.argument));
    }
    for (const Flag& flag : command.flags) {
      if (!flag.values.empty()) {
        values += fmt::format("    '{} {}') values='{}' ;;\n", command.path, flag.name,
                              fmt::join(flag.values, " "));
      } else if (flag.takes_value) {
        values += fmt::format("    '{} {}') kind={}; offer='' ;;\n", command.path, flag.name,
                              ArgumentWord(flag.takes_file ? Argument::kFile : Argument::kNone));
      }
    }
  }
  return words + "  esac\n" + kinds + "  esac\n" + values + "  esac\n";
}

// The commands below which other commands stand: only there does a word lengthen the path.
std::string GroupPattern(const std::vector<Command>& commands) {
  std::vector<std::string> groups;
  for (const Command& command : commands) {
    if (!command.subcommands.empty()) groups.push_back("'" + command.path + "'");
  }
  return fmt::format("{}", fmt::join(groups, "|"));
}

constexpr char kAskIds[] = R"SCRIPT(  case "$kind" in
    sweep) offer="$offer $(assay sweep ls -q 2>/dev/null)" ;;
    worker) offer="$offer $(assay worker ls -q 2>/dev/null)" ;;
  esac
)SCRIPT";

std::string BashScript(const std::vector<Command>& commands) {
  return fmt::format(R"SCRIPT(# bash completion of assay: source <(assay completion bash)
_assay() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
  local at='' offer='' values='' kind=none word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${{COMP_WORDS[i]}}"
    case "$word" in -*) continue ;; esac
    case "$at" in {}) at="${{at:+$at }}$word" ;; esac
  done
{}  if [[ -n $values ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$current"))
    return
  fi
{}  COMPREPLY=($(compgen -W "$offer" -- "$current"))
  if [[ $kind == file ]]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _assay assay
)SCRIPT",
                     GroupPattern(commands), CaseLists(commands), kAskIds);
}

std::string ZshScript(const std::vector<Command>& commands) {
  return fmt::format(R"SCRIPT(#compdef assay
# zsh completion of assay: source <(assay completion zsh), or a file _assay in $fpath
_assay() {{
  emulate -L zsh
  local previous="${{words[CURRENT-1]}}" at='' offer='' values='' kind=none word i
  for ((i = 2; i < CURRENT; i++)); do
    word="${{words[i]}}"
    case "$word" in -*) continue ;; esac
    case "$at" in {}) at="${{at:+$at }}$word" ;; esac
  done
{}  if [[ -n $values ]]; then
    compadd -- ${{=values}}
    return
  fi
{}  compadd -- ${{=offer}}
  if [[ $kind == file ]]; then
    _files
  fi
}}
compdef _assay assay
)SCRIPT",
                     GroupPattern(commands), CaseLists(commands), kAskIds);
}

std::string FishScript(const std::vector<Command>& commands) {
  const auto quote = [](const std::string& text) { return Quote(text, "\\'"); };
  std::string groups = GroupPattern(commands);
  std::replace(groups.begin(), groups.end(), '|', ' ');
  std::string script =
      fmt::format(R"SCRIPT(# fish completion of assay: assay completion fish | source
function __assay_path
    set -l path ''
    for word in (commandline -opc)[2..-1]
        if string match -q -- '-*' $word
            continue
        end
        switch "$path"
            case {}
                set path (string trim "$path $word")
        end
    end
    echo $path
end
function __assay_at
    test "$(__assay_path)" = "$argv[1]"
end
complete -c assay -f
)SCRIPT",
                  groups);
  for (const Command& command : commands) {
    const std::string at = fmt::format("complete -c assay -n \"__assay_at '{}'\"", command.path);
    for (const std::string& name : command.subcommands) {
      const std::string path = command.path.empty() ? name : command.path + " " + name;
      std::string description;
      for (const Command& other : commands) {
        if (other.path == path) description = other.description;
      }
      script += fmt::format("{} -a {} -d {}\n", at, quote(name), quote(description));
    }
    for (const Flag& flag : command.flags) {
      const bool is_long = flag.name.starts_with("--");
      script += fmt::format("{} -{} {} -d {}", at, is_long ? "l" : "s",
                            flag.name.substr(is_long ? 2 : 1), quote(flag.description));
      if (!flag.values.empty()) {
        script += fmt::format(" -x -a {}", quote(fmt::format("{}", fmt::join(flag.values, " "))));
      } else if (flag.takes_value) {
        script += flag.takes_file ? " -r -F" : " -x";
      }
      script += "\n";
    }
    if (command.argument == Argument::kFile) script += at + " -F\n";
    if (command.argument == Argument::kSweep) {
      script += at + " -a '(assay sweep ls -q 2>/dev/null)'\n";
    }
    if (command.argument == Argument::kWorker) {
      script += at + " -a '(assay worker ls -q 2>/dev/null)'\n";
    }
  }
  return script;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, Shell shell) {
  std::vector<Command> commands;
  Collect(app, "", &commands);
  switch (shell) {
    case Shell::kBash:
      return BashScript(commands);
    case Shell::kZsh:
      return ZshScript(commands);
    case Shell::kFish:
      return FishScript(commands);
  }
  return {};
}

}  // namespace assay::cli
