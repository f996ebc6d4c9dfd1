// Text, numbers, tables and JSON as they are printed.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "assay/v1/common.pb.h"
#include "assay/v1/fleet_service.pb.h"
#include "cli/output/format.h"
#include "cli/output/json.h"
#include "cli/output/style.h"
#include "cli/output/table.h"
#include "cli/output/text.h"

namespace assay::cli {
namespace {

using Json = nlohmann::json;

TEST(SanitizeTest, EscapeSequencesOfAModelAreWrittenOut) {
  EXPECT_EQ(SanitizeText("a\x1b[2Jb"), "a\\x1b[2Jb");
  EXPECT_EQ(SanitizeText("\x1b]52;c;aGk=\x07"), "\\x1b]52;c;aGk=\\x07");
  EXPECT_EQ(SanitizeText("back\b\b\x7f"), "back\\x08\\x08\\x7f");
  EXPECT_EQ(SanitizeText("over\rwritten"), "over\\rwritten");
}

TEST(SanitizeTest, TheEightBitIntroducerIsWrittenOutToo) {
  EXPECT_EQ(SanitizeText("\xc2\x9b"
                         "31m"),
            "\\x9b31m");
}

TEST(SanitizeTest, BidirectionalOverridesAreWrittenOut) {
  EXPECT_EQ(SanitizeText("\xe2\x80\xaetxt"), "\\u202etxt");
  EXPECT_EQ(SanitizeText("\xe2\x81\xa6x"), "\\u2066x");
}

TEST(SanitizeTest, BrokenUtf8IsWrittenOutAndTextStays) {
  EXPECT_EQ(SanitizeText("a\xff\xc3"), "a\\xff\\xc3");
  EXPECT_EQ(SanitizeText("Zahl √2 ≈ 1,41\n\t数"), "Zahl √2 ≈ 1,41\n\t数");
}

TEST(SanitizeTest, ALineStaysALine) { EXPECT_EQ(SanitizeLine("a\nb\tc"), "a\\nb\\tc"); }

TEST(WidthTest, CountsColumnsNotBytes) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("数学"), 4);
  EXPECT_EQ(DisplayWidth("e\xcc\x81"), 1);  // e and a combining accent
  EXPECT_EQ(DisplayWidth("\x1b[31mred\x1b[0m"), 3);
}

TEST(TruncateTest, CutsAtTheColumnAndClosesColours) {
  EXPECT_EQ(Truncate("abcdef", 6), "abcdef");
  EXPECT_EQ(Truncate("abcdef", 5), "abcd…");
  EXPECT_EQ(Truncate("数学数学", 5), "数学…");
  EXPECT_EQ(Truncate("数学数学", 4), "数…");  // a wide character that fits only by half goes
  EXPECT_EQ(Truncate("\x1b[31mabcdef\x1b[0m", 4), "\x1b[31mabc…\x1b[0m");
  EXPECT_EQ(Truncate("abc", 0), "");
}

TEST(WrapTest, BreaksAtSpacesAndWithinLongWords) {
  EXPECT_EQ(Wrap("one two three", 8), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(Wrap("abcdefgh", 3), (std::vector<std::string>{"abc", "def", "gh"}));
  EXPECT_EQ(Wrap("a\n\nb", 9), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(Wrap("数学数学", 5), (std::vector<std::string>{"数学", "数学"}));
  EXPECT_EQ(Wrap("", 5), (std::vector<std::string>{""}));
}

TEST(ShellQuoteTest, OnlyWhereNeeded) {
  EXPECT_EQ(ShellQuote("/a/b-c.db"), "/a/b-c.db");
  EXPECT_EQ(ShellQuote("it's here"), "'it'\\''s here'");
  EXPECT_EQ(ShellQuote(""), "''");
}

TEST(FormatTest, NumbersReadAsPeopleSayThem) {
  EXPECT_EQ(FormatPercent(0.98312), "98.3");
  EXPECT_EQ(FormatPercent(-0.0001), "0.0");
  EXPECT_EQ(FormatPercent(1), "100.0");
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
  EXPECT_EQ(FormatShort(999), "999");
  EXPECT_EQ(FormatShort(999.6), "1.00k");
  EXPECT_EQ(FormatShort(15234), "15.2k");
  EXPECT_EQ(FormatShort(1.02e6), "1.02M");
  EXPECT_EQ(FormatBytes(512), "512 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatLatency(1240), "1.2 ms");
  EXPECT_EQ(FormatLatency(1'240'000), "1.24 s");
  EXPECT_EQ(FormatPValue(-1), "-");
  EXPECT_EQ(FormatPValue(1e-6), "p < 1e-4");
  EXPECT_EQ(FormatPValue(0.0321), "p = 0.032");
  EXPECT_EQ(Plural(1, "cell"), "1 cell");
  EXPECT_EQ(Plural(1200, "unit"), "1,200 units");
}

TEST(FormatTest, SpansKeepTwoUnits) {
  EXPECT_EQ(FormatSpan(absl::Milliseconds(420)), "0.4s");
  EXPECT_EQ(FormatSpan(absl::Seconds(59.7)), "1m 00s");
  EXPECT_EQ(FormatSpan(absl::Seconds(3605)), "1h 00m");
  EXPECT_EQ(FormatSpan(absl::Hours(52)), "2d 04h");
  EXPECT_EQ(FormatSpan(absl::InfiniteDuration()), "?");
}

TEST(ProgressBarTest, IsAsWideAsAskedInBothAlphabets) {
  for (const double fraction : {-1.0, 0.0, 0.3, 0.999, 1.0, 2.0}) {
    EXPECT_EQ(DisplayWidth(ProgressBar(fraction, 20, true)), 20) << fraction;
    EXPECT_EQ(DisplayWidth(ProgressBar(fraction, 20, false)), 20) << fraction;
  }
  EXPECT_EQ(ProgressBar(0.5, 4, false), "##..");
  EXPECT_EQ(ProgressBar(0.375, 2, true), "▊░");
}

Table SmallTable() {
  Table table({{"model", Align::kLeft, true}, {"n", Align::kRight}, {"label"}});
  table.AddRow({"数学 model", "1,000", {"risky", Colour::kRed}});
  table.AddRow({"a,\"b\"|c\n", "7", "-"});
  return table;
}

TEST(TableTest, ColumnsAreAlignedByWidth) {
  EXPECT_EQ(SmallTable().Text(Style(false)),
            "model           n  label\n"
            "----------  -----  -----\n"
            "数学 model  1,000  risky\n"
            "a,\"b\"|c\\n       7  -\n");
}

TEST(TableTest, ColoursDoNotMoveColumns) {
  const std::vector<std::string> plain = SmallTable().Lines(Style(false));
  const std::vector<std::string> coloured = SmallTable().Lines(Style(true));
  EXPECT_NE(coloured[2].find("\x1b[31mrisky\x1b[0m"), std::string::npos);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(DisplayWidth(plain[i]), DisplayWidth(coloured[i])) << i;
  }
}

TEST(TableTest, FlexibleColumnsGiveWayOnANarrowTerminal) {
  for (const std::string& line : SmallTable().Lines(Style(false), 22)) {
    EXPECT_LE(DisplayWidth(line), 22) << line;
  }
}

TEST(TableTest, CsvQuotesWhatItMust) {
  EXPECT_EQ(SmallTable().Csv(),
            "model,n,label\n"
            "数学 model,\"1,000\",risky\n"
            "\"a,\"\"b\"\"|c\n\",7,-\n");
}

TEST(TableTest, MarkdownEscapesBars) {
  EXPECT_EQ(SmallTable().Markdown(),
            "| model      |     n | label |\n"
            "| ---------- | ----: | ----- |\n"
            "| 数学 model | 1,000 | risky |\n"
            "| a,\"b\"\\|c\\n |     7 | -     |\n");
}

TEST(JsonTest, MessagesKeepTheirFieldNamesAndNumbers) {
  v1::Worker worker;
  worker.set_worker_id("w\x1b[31m\x7f");
  worker.set_state(v1::Worker::STATE_DRAINING);
  worker.set_num_samples(int64_t{1} << 40);
  worker.add_slots()->set_index(3);
  const std::string line = MessageJson(worker);
  const Json json = Json::parse(line);
  EXPECT_EQ(json["worker_id"], "w\x1b[31m\x7f");
  EXPECT_EQ(json["state"], "draining");
  EXPECT_EQ(json["num_samples"], int64_t{1} << 40);
  EXPECT_EQ(json["slots"][0]["index"], 3);
  EXPECT_EQ(json["tokens_per_s"], 0.0);  // defaults are there
  EXPECT_EQ(line.find_first_of("\x1b\x7f\n"), std::string::npos);
}

TEST(JsonTest, MapsBytesAndAbsentMessagesHaveAForm) {
  v1::QuantMethod method;
  (*method.mutable_parameters())["sym"] = "true";
  EXPECT_EQ(Json::parse(MessageJson(method))["parameters"]["sym"], "true");
  v1::Sample sample;
  sample.set_prompt_sha256(std::string("\x01\xff", 2));
  sample.set_finish_reason(v1::FINISH_REASON_LENGTH);
  const Json json = Json::parse(MessageJson(sample));
  EXPECT_EQ(json["prompt_sha256"], "01ff");
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_TRUE(json["grade"].is_null());
}

TEST(JsonTest, InvisibleCharactersAreEscapedAndTheJsonIsTheSame) {
  const std::string text = "a\x7f\xc2\x9b\xe2\x80\xae\xe2\x81\xa9√";
  const std::string escaped = EscapeInvisible(Json(text).dump());
  EXPECT_EQ(Json::parse(escaped), Json(text));
  EXPECT_EQ(escaped, "\"a\\u007f\\u009b\\u202e\\u2069√\"");
}

}  // namespace
}  // namespace assay::cli
