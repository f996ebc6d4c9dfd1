// Reads every #include of the repository and fails on an arrow that points the wrong way
// (ARCHITECTURE.md, "Who may include whom"). A folder may include itself and what its row allows.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/paths.h"

namespace assay {
namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;  // "engine/runtime/engine.cc"
  int line = 0;
  std::string target;  // "engine/model/config.h" or "sqlite3.h"
};

// Longest prefix first: the row of a folder is the most specific one.
const std::map<std::string, std::set<std::string>>& Allowed() {
  static const std::map<std::string, std::set<std::string>> allowed = {
      {"base", {}},
      {"storage/sqlite", {"base"}},
      {"storage/schema", {"base", "storage/sqlite"}},
      {"storage/text", {"base"}},
      {"storage/artifacts", {"base"}},
      {"storage/stores", {"base", "storage/sqlite", "storage/schema", "storage/text"}},
      {"engine/tokenizer", {"base"}},
      {"engine/weights", {"base"}},
      {"engine/model", {"base"}},
      {"engine/quant", {"base", "engine/weights", "engine/model"}},
      {"engine/kernels", {"base"}},
      // What pages hold and how values are rounded into them is the description's.
      {"engine/kernels/cuda", {"base", "engine/kernels", "engine/quant"}},
      {"engine/parallel", {"base", "engine/kernels", "engine/model"}},
      {"engine/kv", {"base"}},
      {"engine/sampling", {"base", "engine/kernels"}},
      {"engine/scheduler", {"base", "engine/kv", "engine/sampling"}},
      {"engine/decoder",
       {"base", "engine/kernels", "engine/kv", "engine/sampling", "engine/parallel", "engine/quant",
        "engine/weights", "engine/model"}},
      {"engine/runtime",
       {"base", "engine/decoder", "engine/scheduler", "engine/kernels", "engine/kv",
        "engine/sampling", "engine/quant", "engine/weights", "engine/model"}},
      {"coordinator/statistics", {"base"}},
      {"coordinator/spec", {"base", "storage/stores"}},
      {"coordinator/planner", {"base", "storage/stores", "coordinator/spec"}},
      {"coordinator/reports", {"base", "storage/stores", "coordinator/statistics"}},
      {"coordinator/scheduler", {"base", "storage/stores"}},
      {"coordinator/auth", {"base", "storage/stores"}},
      {"coordinator/control",
       {"base", "storage/stores", "storage/sqlite", "storage/schema", "coordinator/planner",
        "coordinator/scheduler"}},
      {"coordinator/metrics",
       {"base", "storage/stores", "coordinator/control", "coordinator/scheduler"}},
      {"coordinator/api",
       {"base", "storage", "coordinator/spec", "coordinator/planner", "coordinator/scheduler",
        "coordinator/control", "coordinator/metrics", "coordinator/auth", "coordinator/reports",
        "assay/v1"}},
      {"coordinator", {"base", "storage", "coordinator", "assay/v1"}},
      {"worker/wire", {"base", "assay/v1"}},
      {"worker/grading", {"base", "worker/wire", "assay/v1"}},
      {"worker/runner",
       {"base", "worker/wire", "engine/runtime", "engine/tokenizer", "engine/quant",
        "engine/weights", "engine/model", "storage/text", "assay/v1"}},
      {"worker/agent", {"base", "worker/wire", "storage/text", "storage/artifacts", "assay/v1"}},
      {"worker", {"base", "worker", "assay/v1"}},
      {"cli",
       {"base", "storage/sqlite", "storage/schema", "storage/stores", "storage/text", "assay/v1"}},
      {"tests", {"base", "storage", "engine", "coordinator", "worker", "cli", "tests", "assay/v1"}},
  };
  return allowed;
}

// A third-party header has one door.
struct Door {
  std::string pattern;
  std::set<std::string> folders;
};
const std::vector<Door>& Doors() {
  static const std::vector<Door> doors = {
      {"^sqlite3\\.h$", {"storage/sqlite"}},
      {"^nccl\\.h$", {"engine/parallel/nccl"}},
      {"^cu(da|blas).*\\.h$",
       {"engine/kernels/cuda", "engine/parallel", "engine/decoder/cuda", "tests/kernels"}},
      {"^yaml-cpp/", {"coordinator/spec"}},
      {"^pcre2\\.h$", {"engine/tokenizer"}},
      {"^utf8proc\\.h$", {"engine/tokenizer", "cli"}},
      {"^zstd\\.h$", {"storage/text"}},
      {"^openssl/", {"base"}},
      {"^grpcpp?/", {"coordinator", "worker/agent", "cli", "tests"}},
      {"\\.grpc\\.pb\\.h$", {"coordinator", "worker/agent", "cli", "tests"}},
  };
  return doors;
}

bool Within(const std::string& path, const std::string& folder) {
  return path.starts_with(folder + "/");
}

std::string RowOf(const std::string& file) {
  std::string best;
  for (const auto& [folder, unused] : Allowed()) {
    if (Within(file, folder) && folder.size() > best.size()) best = folder;
  }
  return best;
}

std::vector<Include> ReadIncludes() {
  static const std::regex kInclude("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"].*");
  std::vector<Include> includes;
  const fs::path root = testing::SourcePath("");
  for (const char* top : {"base", "storage", "engine", "coordinator", "worker", "cli", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc" && extension != ".cu" && extension != ".cuh") {
        continue;
      }
      std::ifstream file(entry.path());
      std::string line;
      for (int number = 1; std::getline(file, line); ++number) {
        std::smatch match;
        if (!std::regex_match(line, match, kInclude)) continue;
        includes.push_back(
            {fs::relative(entry.path(), root).generic_string(), number, match[1].str()});
      }
    }
  }
  return includes;
}

bool IsOurs(const std::string& target) {
  static const std::set<std::string> kTops = {"base",   "storage", "engine", "coordinator",
                                              "worker", "cli",     "tests",  "assay"};
  const size_t slash = target.find('/');
  return slash != std::string::npos && kTops.contains(target.substr(0, slash));
}

TEST(LayeringTest, NoArrowPointsTheWrongWay) {
  const std::vector<Include> includes = ReadIncludes();
  ASSERT_GT(includes.size(), 100u) << "the sources were not found";
  for (const Include& include : includes) {
    if (!IsOurs(include.target)) continue;
    const std::string row = RowOf(include.file);
    ASSERT_FALSE(row.empty()) << include.file << ": its folder has no row in layering_test.cc";
    const std::set<std::string>& allowed = Allowed().at(row);
    const bool fine = Within(include.target, row) ||
                      std::any_of(allowed.begin(), allowed.end(), [&](const std::string& folder) {
                        return Within(include.target, folder);
                      });
    EXPECT_TRUE(fine) << include.file << ":" << include.line << ": " << row << " must not include "
                      << include.target;
  }
}

TEST(LayeringTest, AThirdPartyHeaderHasOneDoor) {
  for (const Include& include : ReadIncludes()) {
    for (const Door& door : Doors()) {
      if (!std::regex_search(include.target, std::regex(door.pattern))) continue;
      const bool fine =
          std::any_of(door.folders.begin(), door.folders.end(),
                      [&](const std::string& folder) { return Within(include.file, folder); });
      EXPECT_TRUE(fine || Within(include.file, "tests"))
          << include.file << ":" << include.line << ": " << include.target
          << " has its door elsewhere";
    }
  }
}

// Forward declarations are fine, and tests may do as they like.
TEST(LayeringTest, JsonAndYamlStayOutOfHeaders) {
  for (const Include& include : ReadIncludes()) {
    const bool is_library =
        include.target.starts_with("nlohmann/") || include.target.starts_with("yaml-cpp/");
    if (!is_library || include.target == "nlohmann/json_fwd.hpp") continue;
    EXPECT_TRUE(include.file.ends_with(".cc") || Within(include.file, "tests"))
        << include.file << ":" << include.line << ": " << include.target << " in a header";
  }
}

}  // namespace
}  // namespace assay
