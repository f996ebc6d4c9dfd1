// SHA-256, of which content keys are made. Everything expensive is named by the hash of
// what determines it, so equal work is recognised in any sweep.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace assay {

// Incremental SHA-256. Not thread-safe.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(std::string_view bytes);

  // A field of a content key: the length goes in before the bytes, so that ("ab","c") and
  // ("a","bc") differ.
  void UpdateField(std::string_view field);

  // Ends the hash: 64 lower-case hexadecimal digits. Call once.
  std::string HexDigest();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The hash of `bytes`, in hexadecimal.
std::string Sha256Hex(std::string_view bytes);

// Whether the two are equal, in a time that does not depend on where they differ: for what is
// compared with a secret.
bool EqualInConstantTime(std::string_view a, std::string_view b);

// The hash of a file's content, read in pieces. NOT_FOUND or UNAVAILABLE naming the path.
absl::StatusOr<std::string> Sha256OfFile(const std::string& path);

// The first eight bytes of SHA-256 over the fields, as a number: seeds of units.
uint64_t Hash64(std::initializer_list<std::string_view> fields);

}  // namespace assay
