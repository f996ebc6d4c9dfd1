// How fast text becomes token ids, on one core:
//
//   tokenizer_bench MODEL_DIR TEXT_FILE...
//
// "cold" is the first pass over a text after a load, with the tables out of the processor's caches;
// "warm" is the best of five more. The tokenizer itself keeps nothing between calls. A file that
// ends in .jsonl counts by its strings, each encoded by itself.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "engine/tokenizer/tokenizer.h"

namespace assay::engine {
namespace {

constexpr int kNumWarmPasses = 5;

absl::StatusOr<std::vector<std::string>> ReadTexts(const std::string& path) {
  ASSAY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  if (!path.ends_with(".jsonl")) return std::vector<std::string>{content};
  std::vector<std::string> texts;
  for (size_t begin = 0; begin < content.size();) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    const auto json = nlohmann::json::parse(content.substr(begin, end - begin), nullptr, false);
    if (!json.is_object()) return InvalidArgument("{}: a line is no JSON object", path);
    for (const auto& [key, value] : json.items()) {
      if (value.is_string()) texts.push_back(value.get<std::string>());
    }
    begin = end + 1;
  }
  return texts;
}

// Seconds of one pass.
double Pass(const Tokenizer& tokenizer, const std::vector<std::string>& texts, size_t* num_tokens) {
  const auto start = std::chrono::steady_clock::now();
  *num_tokens = 0;
  for (const std::string& text : texts) *num_tokens += tokenizer.Encode(text, false).size();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

absl::Status Run(const std::string& model_dir, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    ASSAY_ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadTexts(path));
    ASSAY_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(model_dir));
    size_t num_bytes = 0;
    for (const std::string& text : texts) num_bytes += text.size();
    size_t num_tokens = 0;
    const double cold = Pass(*tokenizer, texts, &num_tokens);
    double warm = cold;
    for (int i = 0; i < kNumWarmPasses; ++i) {
      warm = std::min(warm, Pass(*tokenizer, texts, &num_tokens));
    }
    const double megabytes = static_cast<double>(num_bytes) / 1e6;
    fmt::print("{}: {} texts, {:.1f} MB, {} tokens; cold {:.1f} MB/s, warm {:.1f} MB/s\n", path,
               texts.size(), megabytes, num_tokens, megabytes / cold, megabytes / warm);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace assay::engine

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: tokenizer_bench MODEL_DIR TEXT_FILE...\n");
    return 2;
  }
  const absl::Status status = assay::engine::Run(argv[1], {argv + 2, argv + argc});
  if (!status.ok()) fmt::print(stderr, "{}\n", status.ToString());
  return status.ok() ? 0 : 1;
}
