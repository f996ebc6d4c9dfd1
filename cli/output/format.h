// Numbers as people read them. Every unit is spelled here once, so that all commands agree.
#pragma once

#include <absl/time/time.h>

#include <cstdint>
#include <string>

namespace assay::cli {

// 0.98312 as "98.3": accuracies and shares in percent, one decimal, without the sign.
std::string FormatPercent(double fraction);

// "98.3 [96.8, 99.1]": a share with its 95 % interval, in percent.
std::string FormatInterval(double fraction, double low, double high);

// 58012 as "58,012".
std::string FormatCount(int64_t value);

// 58012 as "58.0k", 1234567 as "1.23M": for tokens and rates, three digits.
std::string FormatShort(double value);

// "0.4s", "42s", "1m 12s", "3h 05m", "2d 04h"; "?" for a negative or infinite span.
std::string FormatSpan(absl::Duration duration);

// A latency: "12 ms", "1.24 s".
std::string FormatLatency(int64_t microseconds);

// 1536 as "1.5 KiB".
std::string FormatBytes(int64_t bytes);

// "2026-11-22 14:03:07" in the local time zone; "-" for 0.
std::string FormatTime(int64_t unix_microseconds);

// "p < 1e-4", "p = 0.032"; "-" for a negative (absent) value.
std::string FormatPValue(double p);

// "1 cell", "12 cells".
std::string Plural(int64_t count, const std::string& noun);

// A bar of `width` columns, `fraction` (0..1) of it full; ASCII when `unicode` is false.
std::string ProgressBar(double fraction, int width, bool unicode);

}  // namespace assay::cli
