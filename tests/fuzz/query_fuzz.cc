// SQL as a stranger typed it: the database is the same afterwards.
#include <memory>

#include "base/file.h"
#include "base/hash.h"
#include "base/status.h"
#include "storage/sqlite/query_runner.h"
#include "storage/stores/control_store.h"
#include "tests/fuzz/fuzz_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const assay::fuzz::FuzzFolder folder;
  static const std::string path = [] {
    const std::string database = folder.path() + "/assay.db";
    auto store = assay::storage::ControlStore::Open(database);
    ASSAY_CHECK(store.ok(), "{}", assay::Message(store.status()));
    ASSAY_CHECK((*store)->CheckpointWhenIdle().ok());
    return database;
  }();
  static const std::string before = assay::Sha256OfFile(path).value();
  static const std::unique_ptr<assay::storage::sqlite::QueryRunner> runner =
      assay::storage::sqlite::QueryRunner::Open(path).value();
  (void)runner->Run(
      std::string(assay::fuzz::AsText(data, size)),
      {.max_rows = 100, .max_result_bytes = 1 << 20, .timeout = absl::Milliseconds(200)},
      [](const auto&) { return true; }, [](const auto&) { return true; });
  ASSAY_CHECK(assay::Sha256OfFile(path).value() == before);
  return 0;
}
