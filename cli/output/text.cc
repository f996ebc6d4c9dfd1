#include "cli/output/text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdint>

namespace assay::cli {
namespace {

constexpr int32_t kBroken = -1;

// The character at the start of `text`, and the bytes it takes; kBroken takes one byte.
struct Character {
  int32_t code = kBroken;
  size_t num_bytes = 1;
};

Character Next(std::string_view text) {
  utf8proc_int32_t code = kBroken;
  const utf8proc_ssize_t n =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4)), &code);
  if (n <= 0) return {};
  return {code, static_cast<size_t>(n)};
}

bool IsControl(int32_t code) { return code < 0x20 || (code >= 0x7f && code <= 0x9f); }

// Characters that reorder what follows them, so that text reads other than it is.
bool IsBidirectionalOverride(int32_t code) {
  return (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

std::string Sanitize(std::string_view text, bool one_line) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character c = Next(text);
    const bool layout = c.code == '\n' || c.code == '\t';
    if (c.code == kBroken) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[0]));
    } else if (layout && !one_line) {
      out += text[0];
    } else if (c.code == '\n') {
      out += "\\n";
    } else if (c.code == '\t') {
      out += "\\t";
    } else if (c.code == '\r') {
      out += "\\r";
    } else if (IsControl(c.code)) {
      out += fmt::format("\\x{:02x}", c.code);
    } else if (IsBidirectionalOverride(c.code)) {
      out += fmt::format("\\u{:04x}", c.code);
    } else {
      out += text.substr(0, c.num_bytes);
    }
    text.remove_prefix(c.num_bytes);
  }
  return out;
}

// The bytes of the colour sequence (ESC [ ... m) at the start of `text`; 0 when there is none.
size_t ColourSequence(std::string_view text) {
  if (!text.starts_with("\x1b[")) return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end != std::string_view::npos && text[end] == 'm' ? end + 1 : 0;
}

int WidthOf(const Character& c) {
  return c.code == kBroken ? 1 : std::max(0, utf8proc_charwidth(c.code));
}

}  // namespace

std::string SanitizeText(std::string_view text) { return Sanitize(text, false); }
std::string SanitizeLine(std::string_view text) { return Sanitize(text, true); }

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    if (const size_t colour = ColourSequence(text)) {
      text.remove_prefix(colour);
      continue;
    }
    const Character c = Next(text);
    width += WidthOf(c);
    text.remove_prefix(c.num_bytes);
  }
  return width;
}

std::string Truncate(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  std::string out;
  int used = 0;
  bool coloured = false;
  while (!text.empty()) {
    if (const size_t colour = ColourSequence(text)) {
      out += text.substr(0, colour);
      text.remove_prefix(colour);
      coloured = true;
      continue;
    }
    const Character c = Next(text);
    if (used + WidthOf(c) > width - 1) break;
    used += WidthOf(c);
    out += text.substr(0, c.num_bytes);
    text.remove_prefix(c.num_bytes);
  }
  if (width > 0) out += "…";
  if (coloured) out += "\x1b[0m";
  return out;
}

std::string PadRight(std::string text, int width) {
  const int missing = width - DisplayWidth(text);
  if (missing > 0) text.append(static_cast<size_t>(missing), ' ');
  return text;
}

std::string PadLeft(std::string text, int width) {
  const int missing = width - DisplayWidth(text);
  if (missing > 0) text.insert(0, static_cast<size_t>(missing), ' ');
  return text;
}

std::vector<std::string> Wrap(std::string_view text, int width) {
  width = std::max(width, 1);
  std::vector<std::string> lines(1);
  int used = 0;
  size_t last_space = std::string::npos;  // in the current line
  while (!text.empty()) {
    const Character c = Next(text);
    const std::string_view bytes = c.code == '\t' ? " " : text.substr(0, c.num_bytes);
    text.remove_prefix(c.num_bytes);
    if (c.code == '\n') {
      lines.emplace_back();
      used = 0;
      last_space = std::string::npos;
      continue;
    }
    const int columns = c.code == '\t' ? 1 : WidthOf(c);
    if (used + columns > width) {
      std::string rest;
      if (last_space != std::string::npos && bytes != " ") {
        rest = lines.back().substr(last_space + 1);
        lines.back().resize(last_space);
      }
      lines.push_back(rest);
      used = DisplayWidth(rest);
      last_space = std::string::npos;
      if (bytes == " ") continue;  // the break takes the place of the space
    }
    if (bytes == " ") last_space = lines.back().size();
    lines.back() += bytes;
    used += columns;
  }
  return lines;
}

std::string ShellQuote(const std::string& text) {
  static constexpr char kPlain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace assay::cli
