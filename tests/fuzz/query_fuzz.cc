// SQL as a stranger typed it: the database is the same afterwards.
#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>

#include "base/status.h"
#include "storage/sqlite/query_runner.h"
#include "storage/stores/control_store.h"
#include "tests/fuzz/fuzz_folder.h"

namespace {

// Sizes and times of the last write of the database and its log: no write leaves them as they are.
std::string StateOf(const std::string& path) {
  std::string state;
  for (const char* suffix : {"", "-wal"}) {
    struct stat file = {};
    if (::stat((path + suffix).c_str(), &file) != 0) continue;
    state += fmt::format("{} {} {}.{}\n", suffix, file.st_size, file.st_mtim.tv_sec,
                         file.st_mtim.tv_nsec);
  }
  return state;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  static const std::string path = [] {
    const std::string database = folder.path() + "/assay.db";
    auto store = assay::storage::ControlStore::Open(database);
    ASSAY_CHECK(store.ok(), "{}", assay::Message(store.status()));
    ASSAY_CHECK((*store)->CheckpointWhenIdle().ok());
    return database;
  }();
  static const std::unique_ptr<assay::storage::sqlite::QueryRunner> runner =
      assay::storage::sqlite::QueryRunner::Open(path).value();
  static const std::string before = StateOf(path);  // opening makes an empty log
  (void)runner->Run(
      std::string(assay::fuzz::AsText(data, size)),
      {.max_rows = 100, .max_result_bytes = 1 << 20, .timeout = absl::Milliseconds(200)},
      [](const auto&) { return true; }, [](const auto&) { return true; });
  ASSAY_CHECK(StateOf(path) == before);
  return 0;
}
