// Colours, or none: they appear only on a terminal, and never when NO_COLOR is set.
#pragma once

#include <string>
#include <string_view>

namespace assay::cli {

enum class Colour { kNone, kBold, kDim, kRed, kGreen, kYellow, kCyan };

class Style {
 public:
  explicit Style(bool enabled) : enabled_(enabled) {}

  // `text` in `colour`, unchanged when colours are off.
  std::string operator()(Colour colour, std::string_view text) const;

  bool enabled() const { return enabled_; }

 private:
  bool enabled_;
};

// The colour of a label: lossless green, fair yellow, risky red, what is not known dim.
Colour ColourOfLabel(std::string_view label);

// Whether output to `fd` is coloured: a terminal that is not "dumb", and no NO_COLOR
// (https://no-color.org: set and not empty).
bool WantsColour(int fd);

}  // namespace assay::cli
