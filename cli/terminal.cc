#include "cli/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>

#include "cli/interrupt.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

constexpr char kHideCursor[] = "\x1b[?25l";
constexpr char kShowCursor[] = "\x1b[?25h";
constexpr char kEnterAlternate[] = "\x1b[?1049h\x1b[?25l";
constexpr char kLeaveAlternate[] = "\x1b[?25h\x1b[?1049l";
constexpr char kClearLine[] = "\x1b[K";
constexpr char kClearBelow[] = "\x1b[J";

// One write for a whole drawing: a terminal that shows half of it flickers.
void WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the terminal is gone: nobody to tell
    text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

bool IsTerminal(int fd) { return ::isatty(fd) == 1; }

TerminalSize GetTerminalSize(int fd) {
  TerminalSize size;
  struct winsize window {};
  if (::ioctl(fd, TIOCGWINSZ, &window) == 0) {
    if (window.ws_col > 0) size.columns = window.ws_col;
    if (window.ws_row > 0) size.rows = window.ws_row;
  }
  return size;
}

int TableWidth(int fd) { return IsTerminal(fd) ? GetTerminalSize(fd).columns : 0; }

bool UnicodeLocale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view locale(value);
    return locale.find("UTF-8") != std::string_view::npos ||
           locale.find("utf8") != std::string_view::npos ||
           locale.find("utf-8") != std::string_view::npos;
  }
  return false;
}

LiveScreen::LiveScreen(int fd, Mode mode) : fd_(fd), mode_(mode) {
  SetRestoreSequence(fd, mode == Mode::kAlternate ? kLeaveAlternate : kShowCursor);
  WriteAll(fd_, mode == Mode::kAlternate ? kEnterAlternate : kHideCursor);
}

LiveScreen::~LiveScreen() {
  WriteAll(fd_, mode_ == Mode::kAlternate ? kLeaveAlternate : kShowCursor);
  SetRestoreSequence(-1, nullptr);
}

void LiveScreen::Draw(const std::vector<std::string>& lines) {
  const TerminalSize size = GetTerminalSize(fd_);
  // Inline, the line under the drawing holds the cursor.
  const int rows = std::max(1, mode_ == Mode::kAlternate ? size.rows : size.rows - 1);
  const int num_lines = std::min(static_cast<int>(lines.size()), rows);
  std::string out;
  if (mode_ == Mode::kAlternate) {
    out = "\x1b[H";
  } else if (num_drawn_ > 0) {
    out = fmt::format("\x1b[{}A\r", std::min(num_drawn_, rows));
  }
  for (int i = 0; i < num_lines; ++i) {
    if (mode_ == Mode::kAlternate && i > 0) out += "\r\n";
    out += Truncate(lines[static_cast<size_t>(i)], size.columns);
    out += kClearLine;
    if (mode_ == Mode::kInline) out += "\r\n";
  }
  out += kClearBelow;
  WriteAll(fd_, out);
  num_drawn_ = num_lines;
}

}  // namespace assay::cli
