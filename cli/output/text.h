// Text on its way to a terminal: what it may contain, and how many columns it takes.
//
// Model output is hostile: an escape sequence in an answer could rewrite the screen or the
// clipboard of whoever reads it (prompt injection reaches terminals). So everything that comes from
// a model, a file or the wire passes through one of the two Sanitize functions before it is shown.
//
// Pure functions. Width counts terminal columns as Unicode East Asian Width has them; the colour
// sequences that Style adds count as nothing.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace assay::cli {

// `text` with control characters (all but newline and tab), bidirectional overrides and broken
// UTF-8 written out as \x1b or \u202e. For text of several lines.
std::string SanitizeText(std::string_view text);

// The same, with newlines, tabs and carriage returns written out too: one line stays one line.
std::string SanitizeLine(std::string_view text);

// Columns that `text` takes. Broken UTF-8 counts one column a byte.
int DisplayWidth(std::string_view text);

// `text`, cut with an ellipsis when it takes more than `width` columns. A cut inside colours ends
// with the sequence that resets them.
std::string Truncate(std::string_view text, int width);

std::string PadRight(std::string text, int width);
std::string PadLeft(std::string text, int width);

// `text` broken into lines of at most `width` columns (at least 1), at spaces where there are any.
// Text without colours; tabs become spaces.
std::vector<std::string> Wrap(std::string_view text, int width);

// `text` as one word of a POSIX shell, for commands that we print for copying.
std::string ShellQuote(const std::string& text);

}  // namespace assay::cli
