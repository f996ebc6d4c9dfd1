#include "storage/artifacts/artifact_store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "base/hash.h"
#include "storage/artifacts/artifact_upload.h"
#include "tests/testing/paths.h"
#include "tests/testing/status_matchers.h"

namespace assay::storage {
namespace {

using absl::StatusCode;
using assay::testing::IsError;
namespace fs = std::filesystem;

const std::string kKey(64, 'a');
const std::string kOtherKey(64, 'b');

class ArtifactStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK_AND_ASSIGN(store_, ArtifactStore::Open(root_)); }

  // A work folder with two files and an empty one.
  std::string MakeFolder(const std::string& weights = "weights") {
    absl::StatusOr<std::string> dir = store_->MakeWorkFolder();
    EXPECT_OK(dir);
    EXPECT_OK(WriteFileAtomically(*dir + "/config.json", "{}"));
    EXPECT_OK(WriteFileAtomically(*dir + "/empty.txt", ""));
    EXPECT_OK(WriteFileAtomically(*dir + "/model.safetensors", weights));
    return *dir;
  }

  Manifest Published(const std::string& key = kKey) {
    absl::StatusOr<Manifest> manifest = store_->Publish(MakeFolder(), key);
    EXPECT_OK(manifest);
    return manifest.ok() ? *manifest : Manifest();
  }

  int NumIncoming() {
    int count = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(root_ + "/.incoming")) ++count;
    return count;
  }

  assay::testing::TemporaryDirectory directory_;
  const std::string root_ = directory_ / "artifacts";
  std::unique_ptr<ArtifactStore> store_;
};

TEST_F(ArtifactStoreTest, APublishedFolderIsUnderItsKeyWithItsManifestBeside) {
  EXPECT_FALSE(store_->Has(kKey));
  EXPECT_THAT(store_->ReadManifest(kKey), IsError(StatusCode::kNotFound, kKey));
  const Manifest manifest = Published();
  EXPECT_TRUE(store_->Has(kKey));
  ASSERT_EQ(manifest.files.size(), 3u);
  EXPECT_EQ(manifest.files[2].name, "model.safetensors");
  EXPECT_EQ(manifest.files[2].size_bytes, 7);
  EXPECT_EQ(manifest.files[2].sha256, Sha256Hex("weights"));
  EXPECT_EQ(manifest.total_bytes(), 9);
  ASSERT_OK_AND_ASSIGN(const Manifest stored, store_->ReadManifest(kKey));
  EXPECT_EQ(stored, manifest);
  ASSERT_OK_AND_ASSIGN(const Manifest computed, ComputeManifest(store_->Path(kKey)));
  EXPECT_EQ(computed, manifest) << "the manifest does not count itself";
  ASSERT_OK(store_->Verify(kKey));
  EXPECT_EQ(NumIncoming(), 0);
}

TEST_F(ArtifactStoreTest, TheFirstPublisherWinsAndTheSecondIsFine) {
  const Manifest first = Published();
  const std::string dir = MakeFolder("other weights");
  ASSERT_OK_AND_ASSIGN(const Manifest second, store_->Publish(dir, kKey));
  EXPECT_EQ(second, first);
  EXPECT_FALSE(fs::exists(dir));
  ASSERT_OK(store_->Verify(kKey));
}

TEST_F(ArtifactStoreTest, AnotherManifestThanExpectedIsDataLossAndNotPublished) {
  EXPECT_THAT(store_->Publish(MakeFolder(), kKey, std::string(64, '0')),
              IsError(StatusCode::kDataLoss, "as announced"));
  EXPECT_FALSE(store_->Has(kKey));
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, ComputeManifest(MakeFolder()));
  ASSERT_OK(store_->Publish(MakeFolder(), kKey, manifest.manifest_sha256));
}

TEST_F(ArtifactStoreTest, AFolderWithAnythingButPlainFilesIsRefused) {
  std::string dir = MakeFolder();
  fs::create_directory(dir + "/sub");
  EXPECT_THAT(store_->Publish(dir, kKey), IsError(StatusCode::kInvalidArgument, "'sub'"));
  dir = MakeFolder();
  fs::create_symlink("/etc/passwd", dir + "/link");
  EXPECT_THAT(store_->Publish(dir, kKey), IsError(StatusCode::kInvalidArgument, "'link'"));
  dir = MakeFolder();
  ASSERT_OK(WriteFileAtomically(dir + "/.hidden", "x"));
  EXPECT_THAT(store_->Publish(dir, kKey), IsError(StatusCode::kInvalidArgument, "'.hidden'"));
  ASSERT_OK_AND_ASSIGN(dir, store_->MakeWorkFolder());
  EXPECT_THAT(store_->Publish(dir, kKey), IsError(StatusCode::kInvalidArgument, "0 files"));
  EXPECT_THAT(ComputeManifest(directory_ / "none"), IsError(StatusCode::kNotFound, "none"));
}

TEST_F(ArtifactStoreTest, ChangedMissingAndAddedFilesAreFound) {
  Published();
  const std::string weights = store_->Path(kKey) + "/model.safetensors";
  ASSERT_OK(WriteFileAtomically(weights, "weightz"));
  EXPECT_THAT(store_->Verify(kKey), IsError(StatusCode::kDataLoss, "model.safetensors"));
  fs::remove(weights);
  EXPECT_THAT(store_->Verify(kKey), IsError(StatusCode::kDataLoss, "model.safetensors"));
  ASSERT_OK(WriteFileAtomically(weights, "weights"));
  ASSERT_OK(store_->Verify(kKey));
  ASSERT_OK(WriteFileAtomically(store_->Path(kKey) + "/added", "x"));
  EXPECT_THAT(store_->Verify(kKey), IsError(StatusCode::kDataLoss, "not published"));
  ASSERT_OK(WriteFileAtomically(store_->Path(kKey) + "/artifact.json", "{}"));
  EXPECT_THAT(store_->ReadManifest(kKey), IsError(StatusCode::kDataLoss, "artifact.json"));
}

TEST_F(ArtifactStoreTest, ChunksSentAndReceivedGiveTheSameArtifact) {
  const Manifest manifest = Published();
  ASSERT_OK_AND_ASSIGN(const auto upload, store_->BeginUpload(kOtherKey, manifest));
  for (int file = 0; file < static_cast<int>(manifest.files.size()); ++file) {
    int64_t offset = 0;
    while (true) {
      ASSERT_OK_AND_ASSIGN(const std::string chunk, store_->ReadChunk(kKey, file, offset, 3));
      if (chunk.empty()) break;
      ASSERT_OK(upload->Append(file, offset, chunk));
      offset += static_cast<int64_t>(chunk.size());
    }
  }
  EXPECT_FALSE(store_->Has(kOtherKey));
  ASSERT_OK(upload->Finish());
  ASSERT_OK(store_->Verify(kOtherKey));
  EXPECT_THAT(upload->Finish(), IsError(StatusCode::kFailedPrecondition, "over"));
  EXPECT_THAT(store_->BeginUpload(kOtherKey, manifest),
              IsError(StatusCode::kAlreadyExists, kOtherKey));
  EXPECT_THAT(store_->ReadChunk(kKey, 3, 0, 10), IsError(StatusCode::kInvalidArgument, "file 3"));
  EXPECT_THAT(store_->ReadChunk(kKey, 0, -1, 10),
              IsError(StatusCode::kInvalidArgument, "offset -1"));
}

TEST_F(ArtifactStoreTest, WrongChunksEndTheUploadAndLeaveNothing) {
  ASSERT_OK_AND_ASSIGN(const Manifest manifest, ComputeManifest(MakeFolder()));
  const int before = NumIncoming();
  const auto expect_refused = [&](StatusCode code, const char* piece, const auto& send) {
    ASSERT_OK_AND_ASSIGN(const auto upload, store_->BeginUpload(kKey, manifest));
    EXPECT_THAT(send(upload.get()), IsError(code, piece));
    EXPECT_THAT(upload->Append(0, 0, "{}"), IsError(StatusCode::kFailedPrecondition, "over"));
    EXPECT_THAT(upload->Finish(), IsError(StatusCode::kFailedPrecondition, "over"));
  };
  using Upload = ArtifactUpload;
  expect_refused(StatusCode::kInvalidArgument, "at 1, where 0 was next",
                 [](Upload* u) { return u->Append(0, 1, "}"); });
  expect_refused(StatusCode::kInvalidArgument, "longer than its 2 bytes",
                 [](Upload* u) { return u->Append(0, 0, "{ }"); });
  expect_refused(StatusCode::kDataLoss, "arrived with the hash",
                 [](Upload* u) { return u->Append(0, 0, "[]"); });
  expect_refused(StatusCode::kInvalidArgument, "ended after 0 of 2 bytes",
                 [](Upload* u) { return u->Append(2, 0, "weights"); });
  expect_refused(StatusCode::kInvalidArgument, "file -1 comes out of order",
                 [](Upload* u) { return u->Append(-1, 0, ""); });
  expect_refused(StatusCode::kInvalidArgument, "file 3 comes out of order",
                 [](Upload* u) { return u->Append(3, 0, ""); });
  expect_refused(StatusCode::kInvalidArgument, "file 0 comes out of order", [](Upload* u) {
    EXPECT_OK(u->Append(0, 0, "{}"));
    EXPECT_OK(u->Append(2, 0, "wei"));
    return u->Append(0, 2, "");
  });
  expect_refused(StatusCode::kInvalidArgument, "where 2 was next", [](Upload* u) {
    EXPECT_OK(u->Append(0, 0, "{}"));
    return u->Append(0, 0, "{}");
  });
  {
    ASSERT_OK_AND_ASSIGN(const auto upload, store_->BeginUpload(kKey, manifest));
    ASSERT_OK(upload->Append(0, 0, "{}"));
    EXPECT_THAT(upload->Finish(),
                IsError(StatusCode::kInvalidArgument, "'model.safetensors' ended after 0 of 7"));
  }
  EXPECT_FALSE(store_->Has(kKey));
  EXPECT_EQ(NumIncoming(), before);
}

TEST_F(ArtifactStoreTest, HostileManifestsAreRefused) {
  ASSERT_OK_AND_ASSIGN(const Manifest good, ComputeManifest(MakeFolder()));
  const auto expect_refused = [&](const char* piece, const auto& spoil, bool rehash = true) {
    Manifest bad = good;
    spoil(&bad);
    if (rehash) bad.manifest_sha256 = HashOfFiles(bad.files);
    EXPECT_THAT(store_->BeginUpload(kKey, bad), IsError(StatusCode::kInvalidArgument, piece));
  };
  for (const char* name : {"../evil", "a/b", "", ".", "..", ".hidden", "artifact.json", "a b",
                           "a\nb", "/etc/passwd"}) {
    expect_refused("cannot be a file of an artifact",
                   [name](Manifest* m) { m->files[0].name = name; });
  }
  expect_refused("has -1 bytes", [](Manifest* m) { m->files[0].size_bytes = -1; });
  expect_refused("bytes; an artifact has at most", [](Manifest* m) {
    for (ManifestFile& file : m->files) file.size_bytes = int64_t{3} << 40;
  });
  expect_refused("no SHA-256", [](Manifest* m) { m->files[0].sha256 = std::string(64, 'X'); });
  expect_refused("not in name order", [](Manifest* m) { std::swap(m->files[0], m->files[1]); });
  expect_refused("or there twice", [](Manifest* m) { m->files[1] = m->files[0]; });
  expect_refused("1 to 4096", [](Manifest* m) { m->files.clear(); });
  expect_refused("1 to 4096", [](Manifest* m) { m->files.resize(5000); });
  expect_refused(
      "not the hash of the files", [](Manifest* m) { m->manifest_sha256[0] = '!'; }, false);
  for (const std::string& key : {std::string("x"), std::string(64, 'A'), std::string("../../etc"),
                                 std::string(63, 'a') + "/"}) {
    EXPECT_FALSE(IsArtifactKey(key));
    EXPECT_THAT(store_->BeginUpload(key, good),
                IsError(StatusCode::kInvalidArgument, "not an artifact key"));
  }
  for (const char* json : {"", "[]", "{}", "{\"files\": 7}", "{\"files\": [7]}",
                           "{\"files\": [], \"manifest_sha256\": \"\"}"}) {
    EXPECT_THAT(ManifestFromJson(json), IsError(StatusCode::kInvalidArgument, "")) << json;
  }
  ASSERT_OK_AND_ASSIGN(const Manifest back, ManifestFromJson(ManifestToJson(good)));
  EXPECT_EQ(back, good);
}

TEST_F(ArtifactStoreTest, WorkOfDeadProcessesIsSweptAwayAndOfLivingOnesIsNot) {
  const std::string mine = MakeFolder();
  const pid_t child = fork();
  if (child == 0) {
    auto other = ArtifactStore::Open(root_);
    if (!other.ok() || !(*other)->MakeWorkFolder().ok()) _exit(1);
    _exit(0);  // without cleaning up
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(NumIncoming(), 4);  // two folders and their locks
  ASSERT_OK(ArtifactStore::Open(root_));
  EXPECT_EQ(NumIncoming(), 2);
  EXPECT_TRUE(fs::exists(mine));
  ASSERT_OK(store_->Publish(mine, kKey));
}

TEST_F(ArtifactStoreTest, TheLongestUnusedGoesFirstAndWhatIsInUseStays) {
  const std::string keys[] = {std::string(64, '1'), std::string(64, '2'), std::string(64, '3')};
  for (const std::string& key : keys) Published(key);
  // Used in the order 2, 3, 1.
  const auto now = fs::file_time_type::clock::now();
  const auto used = [&](const std::string& key, int hours_ago) {
    fs::last_write_time(store_->Path(key) + "/artifact.json", now - std::chrono::hours(hours_ago));
  };
  used(keys[0], 1);
  used(keys[1], 3);
  used(keys[2], 2);
  ASSERT_OK_AND_ASSIGN(const int64_t total, store_->TotalBytes());
  const int64_t each = total / 3;
  ASSERT_OK_AND_ASSIGN(int num_evicted, store_->Evict(total, {}));
  EXPECT_EQ(num_evicted, 0);
  ASSERT_OK_AND_ASSIGN(num_evicted, store_->Evict(2 * each, {keys[1]}));
  EXPECT_EQ(num_evicted, 1);
  EXPECT_TRUE(store_->Has(keys[1])) << "in use";
  EXPECT_FALSE(store_->Has(keys[2]));
  store_->Touch(keys[1]);
  ASSERT_OK_AND_ASSIGN(num_evicted, store_->Evict(each, {}));
  EXPECT_EQ(num_evicted, 1);
  EXPECT_TRUE(store_->Has(keys[1]));
  EXPECT_EQ(NumIncoming(), 0);
}

}  // namespace
}  // namespace assay::storage
