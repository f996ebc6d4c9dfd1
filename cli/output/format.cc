#include "cli/output/format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace assay::cli {

std::string FormatPercent(double fraction) {
  const double percent = std::round(fraction * 1000) / 10;
  return fmt::format("{:.1f}", percent == 0 ? 0.0 : percent);  // no "-0.0"
}

std::string FormatInterval(double fraction, double low, double high) {
  return fmt::format("{} [{}, {}]", FormatPercent(fraction), FormatPercent(low),
                     FormatPercent(high));
}

std::string FormatCount(int64_t value) {
  std::string digits = fmt::format("{}", value);
  const int first = value < 0 ? 1 : 0;
  for (int i = static_cast<int>(digits.size()) - 3; i > first; i -= 3) {
    digits.insert(static_cast<size_t>(i), 1, ',');
  }
  return digits;
}

std::string FormatShort(double value) {
  static constexpr std::array<const char*, 5> kSuffixes = {"", "k", "M", "G", "T"};
  size_t suffix = 0;
  // 999.5 would round to four digits: it belongs to the next suffix.
  while (std::abs(value) >= 999.5 && suffix + 1 < kSuffixes.size()) {
    value /= 1000;
    ++suffix;
  }
  const double magnitude = std::abs(value);
  const int decimals = suffix == 0 || magnitude >= 99.95 ? 0 : magnitude >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", value, decimals, kSuffixes[suffix]);
}

std::string FormatSpan(absl::Duration duration) {
  if (duration < absl::ZeroDuration() || duration == absl::InfiniteDuration()) return "?";
  const double exact = absl::ToDoubleSeconds(duration);
  if (exact < 9.95) return fmt::format("{:.1f}s", exact);
  const int64_t seconds = std::llround(exact);
  if (seconds < 60) return fmt::format("{}s", seconds);
  if (seconds < 3600) return fmt::format("{}m {:02}s", seconds / 60, seconds % 60);
  const int64_t minutes = seconds / 60;
  if (minutes < 24 * 60) return fmt::format("{}h {:02}m", minutes / 60, minutes % 60);
  const int64_t hours = minutes / 60;
  return fmt::format("{}d {:02}h", hours / 24, hours % 24);
}

std::string FormatLatency(int64_t microseconds) {
  const double ms = static_cast<double>(microseconds) / 1000;
  if (ms < 9.95) return fmt::format("{:.1f} ms", ms);
  if (ms < 999.5) return fmt::format("{:.0f} ms", ms);
  return fmt::format("{:.2f} s", ms / 1000);
}

std::string FormatBytes(int64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, kUnits[unit]);
}

std::string FormatTime(int64_t unix_microseconds) {
  if (unix_microseconds == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMicros(unix_microseconds),
                          absl::LocalTimeZone());
}

std::string FormatPValue(double p) {
  if (p < 0) return "-";
  if (p < 1e-4) return "p < 1e-4";
  return fmt::format("p = {:.{}f}", p, p < 0.01 ? 4 : 3);
}

std::string Plural(int64_t count, const std::string& noun) {
  return fmt::format("{} {}{}", FormatCount(count), noun, count == 1 ? "" : "s");
}

std::string ProgressBar(double fraction, int width, bool unicode) {
  // Eighths of a block make the bar move smoothly over a long sweep.
  static constexpr std::array<const char*, 8> kEighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  fraction = std::clamp(fraction, 0.0, 1.0);
  std::string bar;
  int used;
  if (unicode) {
    const int eighths = static_cast<int>(fraction * width * 8);
    for (int i = 0; i < eighths / 8; ++i) bar += "█";
    bar += kEighths[static_cast<size_t>(eighths % 8)];
    used = eighths / 8 + (eighths % 8 != 0 ? 1 : 0);
    for (; used < width; ++used) bar += "░";
  } else {
    used = static_cast<int>(fraction * width);
    bar.assign(static_cast<size_t>(used), '#');
    bar.append(static_cast<size_t>(width - used), '.');
  }
  return bar;
}

}  // namespace assay::cli
