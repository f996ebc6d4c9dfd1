#include "cli/output/style.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

namespace assay::cli {
namespace {

const char* Code(Colour colour) {
  switch (colour) {
    case Colour::kNone:
      return "";
    case Colour::kBold:
      return "1";
    case Colour::kDim:
      return "2";
    case Colour::kRed:
      return "31";
    case Colour::kGreen:
      return "32";
    case Colour::kYellow:
      return "33";
    case Colour::kCyan:
      return "36";
  }
  return "";
}

}  // namespace

std::string Style::operator()(Colour colour, std::string_view text) const {
  if (!enabled_ || colour == Colour::kNone) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", Code(colour), text);
}

Colour ColourOfLabel(std::string_view label) {
  if (label == "lossless") return Colour::kGreen;
  if (label == "fair") return Colour::kYellow;
  if (label == "risky") return Colour::kRed;
  if (label == "baseline") return Colour::kNone;
  return Colour::kDim;
}

bool WantsColour(int fd) {
  const char* no_colour = std::getenv("NO_COLOR");
  if (no_colour != nullptr && *no_colour != '\0') return false;
  const char* terminal = std::getenv("TERM");
  if (terminal != nullptr && std::string_view(terminal) == "dumb") return false;
  return ::isatty(fd) == 1;
}

}  // namespace assay::cli
