#include "worker/grading/answer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

namespace assay::worker {
namespace {

constexpr std::string_view kEndOfThinking = "</think>";
// Longer answers than this are no answers to the benchmarks graded here.
constexpr size_t kMaxAnswerBytes = 1024;

bool IsSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

std::string Clipped(std::string_view text) {
  return std::string(Trim(text).substr(0, kMaxAnswerBytes));
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// The length of \boxed or \fbox at the start of `text`, else 0.
size_t BoxCommandLength(std::string_view text) {
  for (std::string_view command : {"\\boxed", "\\fbox"}) {
    if (!text.starts_with(command)) continue;
    const char next = text.size() > command.size() ? text[command.size()] : ' ';
    if (std::isalpha(static_cast<unsigned char>(next)) == 0) return command.size();
  }
  return 0;
}

// `\boxed 850`: the word after it.
std::string_view BareBoxContent(std::string_view after_command) {
  const std::string_view content = Trim(after_command.substr(0, kMaxAnswerBytes));
  const size_t end = content.find_first_of(" \t\r\n$\\}");
  return content.substr(0, end);
}

// What is stated after position `begin`: the rest of the line, or the next line with anything in
// it.
std::string_view Statement(std::string_view text, size_t begin) {
  std::string_view rest = text.substr(begin);
  const size_t first = rest.find_first_not_of(" \t\r\n*:#=\"'");
  if (first == std::string_view::npos) return {};
  rest.remove_prefix(first);
  return Trim(rest.substr(0, rest.find('\n')));
}

// After the word "answer": the position behind "is", ":" or "=", when one follows closely.
std::optional<size_t> AfterVerb(const std::string& lower, size_t after_word) {
  // Nothing beyond the window is looked at: a text of nothing but "answer" stays linear.
  constexpr size_t kWindow = 50;
  std::string_view window = std::string_view(lower).substr(after_word, kWindow);
  const size_t newline = window.find('\n');
  window = window.substr(0, newline);
  for (size_t i = 0; i < window.size(); ++i) {
    if (window[i] == ':' || window[i] == '=') return after_word + i + 1;
    const std::string_view rest = window.substr(i);
    if (rest == " is" ||
        (rest.starts_with(" is") && std::isalpha(static_cast<unsigned char>(rest[3])) == 0)) {
      return after_word + i + 3;
    }
  }
  // A heading: "### Final Answer" and the answer on a line of its own.
  const bool bare = window.find_first_not_of(" *#:\r") == std::string_view::npos;
  if (bare && newline != std::string_view::npos) return after_word + newline;
  return std::nullopt;
}

std::optional<std::string> LastStatement(std::string_view text) {
  const std::string lower = Lower(text);
  std::optional<size_t> best;
  const auto consider = [&best](size_t position) { best = std::max(best.value_or(0), position); };
  constexpr std::string_view kWord = "answer";
  for (size_t at = lower.rfind(kWord); at != std::string::npos;
       at = at == 0 ? std::string::npos : lower.rfind(kWord, at - 1)) {
    if (const std::optional<size_t> after = AfterVerb(lower, at + kWord.size())) {
      consider(*after);
      break;
    }
  }
  if (const size_t at = lower.rfind("####"); at != std::string::npos) consider(at + 4);
  if (const size_t at = lower.rfind("\na:"); at != std::string::npos) consider(at + 3);
  if (!best.has_value()) return std::nullopt;
  const std::string_view statement = Statement(text, *best);
  if (statement.empty()) return std::nullopt;
  return Clipped(statement);
}

// Replaces every `from` by `to`.
void ReplaceAll(std::string* text, std::string_view from, std::string_view to) {
  size_t at = 0;
  while ((at = text->find(from, at)) != std::string::npos) {
    text->replace(at, from.size(), to);
    at += to.size();
  }
}

// \text{...} and its like become their content.
void UnwrapCommands(std::string* text) {
  static constexpr std::array<std::string_view, 13> kWrappers = {
      "\\textbf", "\\textit", "\\textrm", "\\text",       "\\mathbf", "\\mathrm", "\\mathit",
      "\\mbox",   "\\boxed",  "\\fbox",   "\\boldsymbol", "\\bm",     "\\bold"};
  for (std::string_view wrapper : kWrappers) {
    size_t at = 0;
    while ((at = text->find(wrapper, at)) != std::string::npos) {
      size_t open = at + wrapper.size();
      while (open < text->size() && (*text)[open] == ' ') ++open;
      if (open >= text->size() || (*text)[open] != '{') {
        at = open;
        continue;
      }
      int depth = 0;
      size_t close = open;
      for (; close < text->size(); ++close) {
        if ((*text)[close] == '{') ++depth;
        if ((*text)[close] == '}' && --depth == 0) break;
      }
      if (close < text->size()) text->erase(close, 1);
      text->erase(at, open + 1 - at);
    }
  }
}

}  // namespace

std::optional<std::string> LastBox(std::string_view text) {
  // One pass with a stack of open braces: linear however many boxes are left open.
  struct OpenBrace {
    size_t position;
    bool is_box;
  };
  std::vector<OpenBrace> open;
  std::optional<std::string_view> best;
  size_t best_start = 0;
  const auto consider = [&](size_t start, std::string_view content) {
    if (best.has_value() && start < best_start) return;
    best = content;
    best_start = start;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\') {
      const size_t command = BoxCommandLength(text.substr(i));
      if (command == 0) {
        ++i;  // an escaped brace is no brace
        continue;
      }
      size_t after = i + command;
      while (after < text.size() && text[after] == ' ') ++after;
      if (after < text.size() && text[after] == '{') {
        open.push_back({after, true});
        i = after;
      } else if (after > i + command) {
        consider(i, BareBoxContent(text.substr(after)));
        i = after - 1;
      }
    } else if (text[i] == '{') {
      open.push_back({i, false});
    } else if (text[i] == '}' && !open.empty()) {
      const OpenBrace brace = open.back();
      open.pop_back();
      if (brace.is_box) {
        consider(brace.position, text.substr(brace.position + 1, i - brace.position - 1));
      }
    }
  }
  if (!best.has_value()) return std::nullopt;
  return Clipped(*best);
}

std::optional<FinalAnswer> FindFinalAnswer(std::string_view response) {
  std::string_view answer_part = response;
  const size_t end_of_thinking = response.rfind(kEndOfThinking);
  if (end_of_thinking != std::string_view::npos) {
    const std::string_view after = response.substr(end_of_thinking + kEndOfThinking.size());
    if (!Trim(after).empty()) answer_part = after;
  }
  if (std::optional<std::string> box = LastBox(answer_part)) {
    return FinalAnswer{*std::move(box), true};
  }
  if (std::optional<std::string> statement = LastStatement(answer_part)) {
    return FinalAnswer{*std::move(statement), false};
  }
  if (answer_part.size() != response.size()) {
    if (std::optional<std::string> box = LastBox(response)) {
      return FinalAnswer{*std::move(box), true};
    }
  }
  return std::nullopt;
}

std::string StripMarkup(std::string_view answer) {
  std::string text(answer.substr(0, kMaxAnswerBytes));
  ReplaceAll(&text, "\\text{,}", ",");
  ReplaceAll(&text, "{,}", ",");
  UnwrapCommands(&text);
  for (std::string_view nothing : {"\\left", "\\right", "\\displaystyle", "\\Large", "\\large",
                                   "\\phantom{-}", "\\(", "\\)", "\\[", "\\]", "\\!", "**", "`"}) {
    ReplaceAll(&text, nothing, "");
  }
  for (std::string_view space : {"\\quad", "\\qquad", "\\,", "\\;", "\\:", "\\ ", "~", "\\\\",
                                 "\u00a0", "\u202f", "\n", "\t"}) {
    ReplaceAll(&text, space, " ");
  }
  ReplaceAll(&text, "\\$", "$");
  ReplaceAll(&text, "\\%", "%");
  ReplaceAll(&text, "\u2212", "-");
  ReplaceAll(&text, "\\dfrac", "\\frac");
  ReplaceAll(&text, "\\tfrac", "\\frac");

  std::string_view trimmed = Trim(text);
  while (true) {
    const size_t size = trimmed.size();
    while (!trimmed.empty() && (trimmed.back() == '.' || trimmed.back() == ',')) {
      trimmed.remove_suffix(1);
    }
    if (trimmed.size() >= 2 && trimmed.front() == '{' && trimmed.back() == '}') {
      trimmed = trimmed.substr(1, trimmed.size() - 2);
    }
    if (trimmed.size() >= 2 && trimmed.front() == '$' && trimmed.back() == '$') {
      trimmed = trimmed.substr(1, trimmed.size() - 2);
    }
    trimmed = Trim(trimmed);
    if (trimmed.size() == size) return std::string(trimmed);
  }
}

std::string NormalizeText(std::string_view answer) {
  std::string text = Lower(StripMarkup(answer));
  std::erase_if(text, [](char c) { return IsSpace(c) || c == '$'; });
  ReplaceAll(&text, "^{\\circ}", "");
  ReplaceAll(&text, "^\\circ", "");
  return text;
}

}  // namespace assay::worker
