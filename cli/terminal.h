// The terminal: what it is, and redrawing it in place.
#pragma once

#include <string>
#include <vector>

namespace assay::cli {

struct TerminalSize {
  int columns = 80;
  int rows = 24;
};

bool IsTerminal(int fd);

// The size now (it changes while we run); 80 x 24 when unknown.
TerminalSize GetTerminalSize(int fd);

// The width that a table printed to `fd` should keep to: that of the terminal, or 0 (no limit) in a
// pipe.
int TableWidth(int fd);

// Whether the locale's characters are UTF-8, so that bars may use block elements.
bool UnicodeLocale();

// A drawing that is replaced by the next one. Lines are cut to the terminal's size. The cursor is
// hidden meanwhile; the destructor, and Ctrl-C, give the terminal back as it was. Not thread-safe;
// at most one at a time.
class LiveScreen {
 public:
  enum class Mode {
    kInline,     // at the cursor; the last drawing stays when the object goes
    kAlternate,  // the whole screen, as editors do; what was there before comes back
  };

  // `fd` is a terminal.
  LiveScreen(int fd, Mode mode);
  ~LiveScreen();
  LiveScreen(const LiveScreen&) = delete;
  LiveScreen& operator=(const LiveScreen&) = delete;

  void Draw(const std::vector<std::string>& lines);

 private:
  const int fd_;
  const Mode mode_;
  int num_drawn_ = 0;
};

}  // namespace assay::cli
