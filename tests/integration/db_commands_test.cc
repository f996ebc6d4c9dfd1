// A database in the hands of a person, through the real programs: backup under a running
// coordinator, check, vacuum, export; metrics and logs of the same run; older and newer files.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"
#include "storage/schema/migrator.h"
#include "storage/sqlite/connection.h"
#include "tests/testing/local_system.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay {
namespace {

using nlohmann::json;
using storage::sqlite::Connection;
using testing::BinaryPath;
using testing::CommandResult;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::LocalSystem;
using testing::RunProgram;
using ::testing::StartsWith;
using testing::TemporaryDirectory;
using testing::WaitUntil;

constexpr char kSpec[] = R"(
name: small
models: [{name: tiny-qwen2-1m}]
benchmarks: [{name: arith500, limit: 6}]
sampling: {temperature: 0.6, top_p: 0.95, max_tokens: 64, seed: 7}
)";
constexpr int64_t kNumUnits = 6;
constexpr absl::Duration kPatience = absl::Minutes(4);

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

// What GET `path` on a local port answers, head and body.
std::string HttpGet(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string text;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    const std::string request = "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n";
    (void)!send(fd, request.data(), request.size(), MSG_NOSIGNAL);
    char buffer[4096];
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
      text.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  return text;
}

TEST(DbCommandsTest, ADatabaseIsBackedUpCheckedExportedAndCompacted) {
  const TemporaryDirectory directory;
  LocalSystem system({.directory = directory.path(),
                      .coordinator_flags = {"--metrics", "127.0.0.1:0", "--log-format", "json"}});
  ASSERT_OK(system.StartCoordinator());
  ASSERT_OK(system.StartWorker("worker", 1));
  ASSERT_OK_AND_ASSIGN(const std::string sweep, system.Submit(kSpec));
  ASSERT_TRUE(WaitUntil([&] { return system.SweepSettled(sweep); }, kPatience)) << system.Logs();
  ASSERT_EQ(system.NumSamples(), kNumUnits);

  // Metrics.
  ASSERT_OK_AND_ASSIGN(const std::string ports, ReadFile(directory / "port"));
  ASSERT_EQ(Lines(ports).size(), 2u);
  const int metrics_port = std::stoi(Lines(ports)[1]);
  const std::string metrics = HttpGet(metrics_port, "/metrics");
  EXPECT_THAT(metrics, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(metrics, HasSubstr("\r\nContent-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(metrics, HasSubstr("\nassay_samples_total{outcome=\"accepted\"} 6\n"));
  EXPECT_THAT(metrics, HasSubstr("\nassay_samples_stored 6\n"));
  EXPECT_THAT(metrics, HasSubstr("\nassay_sweeps{state=\"done\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("\nassay_worker_up{worker=\"worker\"} 1\n"));
  EXPECT_THAT(metrics,
              HasSubstr("\nassay_rpcs_total{method=\"SweepService/SubmitSweep\",code=\"OK\"} 1\n"));
  EXPECT_THAT(HttpGet(metrics_port, "/healthz"), HasSubstr("\r\n\r\nok\n"));

  // Backup by the coordinator.
  const CommandResult backup = system.Assay({"db", "backup", "first.db"});
  ASSERT_EQ(backup.exit_code, 0) << backup.err;
  const std::string copy = directory / "data/backups/first.db";
  EXPECT_EQ(Lines(backup.out), std::vector<std::string>{copy});
  EXPECT_EQ(system.Assay({"db", "check", copy}).exit_code, 0);
  EXPECT_EQ(system.Assay({"db", "backup", "first.db"}).exit_code, 73) << "the name is taken";
  EXPECT_EQ(system.Assay({"db", "backup", "../escape.db"}).exit_code, 65);
  const json named = json::parse(system.Assay({"db", "backup", "--json"}).out);
  EXPECT_THAT(named["path"].get<std::string>(), HasSubstr("/backups/assay-2"));

  // Export: every sample with its text.
  const CommandResult jsonl = system.Assay({"db", "export", sweep, "--db", copy, "-o", "jsonl"});
  ASSERT_EQ(jsonl.exit_code, 0) << jsonl.err;
  const std::vector<std::string> samples = Lines(jsonl.out);
  ASSERT_EQ(samples.size(), static_cast<size_t>(kNumUnits));
  for (const std::string& line : samples) {
    const json sample = json::parse(line);
    EXPECT_NE(sample["text"], "");
    EXPECT_NE(sample["question"], "");
    EXPECT_EQ(sample["worker_id"], "worker");
  }
  const CommandResult csv = system.Assay({"db", "export", sweep, "--db", copy, "-o", "csv"});
  EXPECT_THAT(csv.out, StartsWith("sweep_id,sample_id,"));
  EXPECT_EQ(system.Assay({"db", "export", "nothing", "--db", copy}).exit_code, 66);

  // A vacuum is the owner's, or nobody's.
  const CommandResult refused = system.Assay({"db", "vacuum", system.database()});
  EXPECT_EQ(refused.exit_code, 65);
  EXPECT_THAT(refused.err, HasSubstr("in use by process"));

  // The log is JSON, with the ids as fields.
  EXPECT_EQ(system.StopCoordinator(kPatience), 0);
  ASSERT_OK_AND_ASSIGN(const std::string log, ReadFile(directory / "coordinator.log"));
  bool settled = false;
  for (const std::string& line : Lines(log)) {
    const json record = json::parse(line, nullptr, false);
    ASSERT_TRUE(record.is_object()) << line;
    EXPECT_TRUE(record.contains("time") && record.contains("level")) << line;
    settled |= record["message"] == "sweep_done" && record.value("sweep", "") == sweep;
  }
  EXPECT_TRUE(settled) << log;

  const std::vector<std::string> before = system.SampleFingerprints();
  EXPECT_EQ(before.size(), static_cast<size_t>(kNumUnits));
  const CommandResult vacuum = system.Assay({"db", "vacuum", system.database()});
  EXPECT_EQ(vacuum.exit_code, 0) << vacuum.err;
  EXPECT_EQ(system.SampleFingerprints(), before);

  // Damage is found and named.
  {
    ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenWriter(system.database()));
    ASSERT_OK(db->Execute("DELETE FROM sample_text WHERE sample_id = 1"));
  }
  const CommandResult check = system.Assay({"db", "check", system.database()});
  EXPECT_EQ(check.exit_code, 65);
  EXPECT_THAT(check.out, HasSubstr("sample-text: a sample has no text"));
  EXPECT_EQ(system.Assay({"db", "check", directory / "none.db"}).exit_code, 66);
}

// The file of a version that had the first three steps only.
TEST(DbVersionsTest, AnOlderDatabaseIsCopiedAndThenMigrated) {
  const TemporaryDirectory directory;
  LocalSystem system({.directory = directory.path()});
  ASSERT_OK(MakeDirectories(directory / "data"));
  {
    ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenWriter(system.database()));
    ASSERT_OK(storage::Migrate(db.get(), storage::Migrations().first(3)));
    ASSERT_OK(db->Execute("INSERT INTO meta VALUES('made_by', 'version 3')"));
  }
  const CommandResult old = RunProgram({BinaryPath("assay"), "db", "check", system.database()});
  EXPECT_EQ(old.exit_code, 65);
  EXPECT_THAT(old.err, HasSubstr("made by an older Assay (schema 3"));

  ASSERT_OK(system.StartCoordinator());
  EXPECT_EQ(system.Assay({"query", "SELECT * FROM v_event"}).exit_code, 0);
  EXPECT_EQ(system.StopCoordinator(kPatience), 0);
  EXPECT_EQ(system.Assay({"db", "check", system.database()}).exit_code, 0);
  EXPECT_THAT(Lines(system
                        .Assay({"query", "SELECT value FROM meta WHERE key = 'made_by'", "--db",
                                system.database(), "-o", "csv"})
                        .out),
              ElementsAre("value", "version 3"));

  const std::string copy =
      fmt::format("{}.before-schema-{}", system.database(), storage::Migrations().back().version);
  ASSERT_OK_AND_ASSIGN(const auto kept, Connection::OpenReader(copy));
  ASSERT_OK_AND_ASSIGN(const int64_t version, kept->QueryInteger("PRAGMA user_version"));
  EXPECT_EQ(version, 3);
}

TEST(DbVersionsTest, ANewerDatabaseIsRefusedAndLeftAsItIs) {
  const TemporaryDirectory directory;
  const std::string database = directory / "data/assay.db";
  ASSERT_OK(MakeDirectories(directory / "data"));
  {
    ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenWriter(database));
    ASSERT_OK(storage::Migrate(db.get()));
    ASSERT_OK(db->Execute("PRAGMA user_version=999"));
  }
  const CommandResult result = RunProgram(
      {BinaryPath("assay-coordinator"), "--data", directory / "data", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(result.exit_code, 65);
  EXPECT_THAT(result.err, HasSubstr("made by a newer Assay (schema 999"));
  ASSERT_OK_AND_ASSIGN(const auto db, Connection::OpenReader(database));
  ASSERT_OK_AND_ASSIGN(const int64_t version, db->QueryInteger("PRAGMA user_version"));
  EXPECT_EQ(version, 999);
}

}  // namespace
}  // namespace assay
