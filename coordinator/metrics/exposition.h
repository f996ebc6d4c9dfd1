// Prometheus' text exposition format, version 0.0.4: families of samples, each with one HELP and
// one TYPE line before its samples, label values escaped.
// https://prometheus.io/docs/instrumenting/exposition_formats/
//
//   Exposition text;
//   text.Family("assay_units", Exposition::Type::kGauge, "Units of live sweeps by state");
//   text.Sample({{"state", "queued"}}, 17);
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/control/meters.h"

namespace assay::coordinator {

class Exposition {
 public:
  enum class Type { kCounter, kGauge, kHistogram };
  using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

  // Begins a family. `name` and label names are literals of ours: [a-z_]+. A counter's name ends in
  // _total.
  void Family(std::string_view name, Type type, std::string_view help);

  // A sample of the family begun last.
  void Sample(const Labels& labels, double value) { Line("", labels, value); }
  void Sample(double value) { Sample({}, value); }
  void Histogram(const coordinator::Histogram& histogram);

  // The family with its one sample.
  void Counter(std::string_view name, std::string_view help, double value);
  void Gauge(std::string_view name, std::string_view help, double value);

  const std::string& text() const { return text_; }

 private:
  void Line(std::string_view suffix, const Labels& labels, double value);

  std::string text_;
  std::string family_;
};

}  // namespace assay::coordinator
