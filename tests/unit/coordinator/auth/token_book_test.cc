#include "coordinator/auth/token_book.h"

#include <gmock/gmock.h>

#include "base/hash.h"
#include "tests/testing/status_matchers.h"

namespace assay::coordinator {
namespace {

using assay::testing::IsError;

NewToken Make(const std::string& name, Role role) {
  absl::StatusOr<NewToken> made = MakeToken(name, role, 1'000'000);
  EXPECT_OK(made);
  return *std::move(made);
}

TEST(TokenBookTest, FindsThePersonOfAToken) {
  const NewToken alice = Make("alice", Role::kSubmitter);
  TokenBook book;
  book.Add(alice.record);
  const std::optional<Person> person = book.Find(alice.text);
  ASSERT_TRUE(person.has_value());
  EXPECT_EQ(person->name, "alice");
  EXPECT_EQ(person->role, Role::kSubmitter);
}

TEST(TokenBookTest, KeepsNothingFromWhichATokenCouldBeMade) {
  const NewToken alice = Make("alice", Role::kViewer);
  EXPECT_EQ(alice.record.hash, Sha256Hex(alice.text));
  const std::string secret = alice.text.substr(alice.text.rfind('_') + 1);
  EXPECT_EQ(secret.size(), 64u);
  EXPECT_EQ(alice.record.token_id.find(secret), std::string::npos);
}

TEST(TokenBookTest, AnyOtherTextIsNobodys) {
  const NewToken alice = Make("alice", Role::kAdmin);
  TokenBook book;
  book.Add(alice.record);
  EXPECT_FALSE(book.Find(""));
  EXPECT_FALSE(book.Find("assay_"));
  EXPECT_FALSE(book.Find(alice.record.hash));
  EXPECT_FALSE(book.Find(alice.text + "0"));
  EXPECT_FALSE(book.Find(std::string(1 << 20, 'a')));
  std::string altered = alice.text;
  altered.back() = altered.back() == '0' ? '1' : '0';
  EXPECT_FALSE(book.Find(altered));
  EXPECT_FALSE(book.Find(Make("alice", Role::kAdmin).text));
}

TEST(TokenBookTest, ARevokedTokenIsNobodys) {
  const NewToken alice = Make("alice", Role::kAdmin);
  TokenBook book;
  book.Reset({alice.record});
  book.Revoke(alice.record.token_id, 5);
  EXPECT_FALSE(book.Find(alice.text));
  ASSERT_EQ(book.List().size(), 1u);
  EXPECT_EQ(book.List()[0].revoked_time_us, 5);
}

TEST(TokenBookTest, UseIsNotedOnceAMinute) {
  const NewToken alice = Make("alice", Role::kViewer);
  TokenBook book;
  book.Add(alice.record);
  EXPECT_TRUE(book.NoteUse(alice.record.token_id, 1'000'000'000));
  EXPECT_FALSE(book.NoteUse(alice.record.token_id, 1'030'000'000));
  EXPECT_TRUE(book.NoteUse(alice.record.token_id, 1'060'000'000));
}

TEST(TokenBookTest, ANameIsPlain) {
  EXPECT_THAT(MakeToken("", Role::kViewer, 0), IsError(absl::StatusCode::kInvalidArgument, "name"));
  EXPECT_THAT(MakeToken("a b", Role::kViewer, 0),
              IsError(absl::StatusCode::kInvalidArgument, "name"));
  EXPECT_THAT(MakeToken("a", Role::kNone, 0), IsError(absl::StatusCode::kInvalidArgument, "role"));
}

}  // namespace
}  // namespace assay::coordinator
