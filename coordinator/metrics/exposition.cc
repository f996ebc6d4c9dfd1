#include "coordinator/metrics/exposition.h"

#include <fmt/format.h>

#include <cmath>

namespace assay::coordinator {
namespace {

// Whole numbers without an exponent, everything else with the digits that give it back.
std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  constexpr double kExact = 9007199254740992;  // 2^53
  if (value == std::floor(value) && std::abs(value) <= kExact) {
    return fmt::format("{}", static_cast<int64_t>(value));
  }
  return fmt::format("{}", value);
}

void AppendEscaped(std::string_view text, bool quotes, std::string* out) {
  for (const char c : text) {
    if (c == '\\') {
      *out += "\\\\";
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '"' && quotes) {
      *out += "\\\"";
    } else {
      *out += c;
    }
  }
}

std::string_view NameOf(Exposition::Type type) {
  switch (type) {
    case Exposition::Type::kCounter:
      return "counter";
    case Exposition::Type::kHistogram:
      return "histogram";
    case Exposition::Type::kGauge:
      break;
  }
  return "gauge";
}

}  // namespace

void Exposition::Family(std::string_view name, Type type, std::string_view help) {
  family_ = name;
  text_ += fmt::format("# HELP {} ", name);
  AppendEscaped(help, /*quotes=*/false, &text_);
  text_ += fmt::format("\n# TYPE {} {}\n", name, NameOf(type));
}

void Exposition::Line(std::string_view suffix, const Labels& labels, double value) {
  text_ += family_;
  text_ += suffix;
  const char* separator = "{";
  for (const auto& [name, text] : labels) {
    text_ += fmt::format("{}{}=\"", separator, name);
    AppendEscaped(text, /*quotes=*/true, &text_);
    text_ += '"';
    separator = ",";
  }
  if (!labels.empty()) text_ += '}';
  text_ += ' ';
  text_ += Number(value);
  text_ += '\n';
}

void Exposition::Histogram(const coordinator::Histogram& histogram) {
  int64_t total = 0;  // buckets are cumulative
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    total += histogram.counts()[i];
    const bool last = i == histogram.upper_bounds().size();
    const std::string bound = last ? "+Inf" : Number(histogram.upper_bounds()[i]);
    Line("_bucket", {{"le", bound}}, static_cast<double>(total));
  }
  Line("_sum", {}, histogram.sum());
  Line("_count", {}, static_cast<double>(total));
}

void Exposition::Counter(std::string_view name, std::string_view help, double value) {
  Family(name, Type::kCounter, help);
  Sample(value);
}

void Exposition::Gauge(std::string_view name, std::string_view help, double value) {
  Family(name, Type::kGauge, help);
  Sample(value);
}

}  // namespace assay::coordinator
