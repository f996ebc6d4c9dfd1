#include "coordinator/metrics/exposition.h"

#include <gtest/gtest.h>

#include <limits>

namespace assay::coordinator {
namespace {

TEST(ExpositionTest, AFamilyHasHelpAndTypeOnceBeforeItsSamples) {
  Exposition text;
  text.Family("assay_units", Exposition::Type::kGauge, "Units by state");
  text.Sample({{"state", "queued"}}, 17);
  text.Sample({{"state", "running"}, {"sweep", "a"}}, 0.25);
  EXPECT_EQ(text.text(),
            "# HELP assay_units Units by state\n"
            "# TYPE assay_units gauge\n"
            "assay_units{state=\"queued\"} 17\n"
            "assay_units{state=\"running\",sweep=\"a\"} 0.25\n");
}

TEST(ExpositionTest, WhatALabelHoldsCannotEndItsLine) {
  Exposition text;
  text.Family("x", Exposition::Type::kGauge, "a \"quoted\"\nhelp \\ text");
  text.Sample({{"worker", "a\"} 1\nevil 2 \\"}}, 1);
  EXPECT_EQ(text.text(),
            "# HELP x a \"quoted\"\\nhelp \\\\ text\n"
            "# TYPE x gauge\n"
            "x{worker=\"a\\\"} 1\\nevil 2 \\\\\"} 1\n");
}

TEST(ExpositionTest, BucketsAreCumulativeAndEndInInfinity) {
  Histogram histogram({0.5, 2});
  for (const double value : {0.25, 0.5, 1.0, 3.0}) histogram.Add(value);
  Exposition text;
  text.Family("t", Exposition::Type::kHistogram, "h");
  text.Histogram(histogram);
  EXPECT_EQ(text.text(),
            "# HELP t h\n# TYPE t histogram\n"
            "t_bucket{le=\"0.5\"} 2\n"
            "t_bucket{le=\"2\"} 3\n"
            "t_bucket{le=\"+Inf\"} 4\n"
            "t_sum 4.75\n"
            "t_count 4\n");
}

TEST(ExpositionTest, LargeAndOddNumbersKeepTheirValue) {
  Exposition text;
  text.Family("x", Exposition::Type::kGauge, "h");
  const size_t head = text.text().size();
  text.Sample(123456789012);
  text.Sample(1e300);
  text.Sample(std::numeric_limits<double>::infinity());
  text.Sample(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(text.text().substr(head), "x 123456789012\nx 1e+300\nx +Inf\nx NaN\n");
}

}  // namespace
}  // namespace assay::coordinator
