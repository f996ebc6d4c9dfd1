// Byte-level BPE exactly as Hugging Face `tokenizers` does it, from tokenizer.json.
//
// Covers: added and special tokens (lstrip, rstrip, single_word, normalized), NFC, any sequence of
// Split (regex or string, every behavior, invert), Digits and ByteLevel pre-tokenizers, BPE with
// ignore_merges, TemplateProcessing and ByteLevel post-processors, ByteLevel decoder. Anything else
// in the file is an INVALID_ARGUMENT that names it: never a silent difference.
#pragma once

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace assay::engine {

// Immutable once loaded; thread-safe.
class Tokenizer {
 public:
  // Reads tokenizer.json (and tokenizer_config.json beside it, for add_bos_token and the names of
  // the special tokens). `path` is the folder.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& model_dir);

  virtual ~Tokenizer() = default;

  // Ids of valid or invalid UTF-8 (invalid bytes count as U+FFFD, as the reference's input cannot
  // hold them). Added tokens in the text are recognised. With `add_special_tokens` the
  // post-processor's tokens (BOS) are put in.
  virtual std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const = 0;

  // Text of ids; ids beyond the vocabulary decode to nothing.
  virtual std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const = 0;

  // The raw bytes of one id: not necessarily UTF-8 by itself.
  virtual std::string_view TokenBytes(int32_t id) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;
  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  virtual int32_t vocab_size() const = 0;  // largest id + 1, added tokens included
};

// Turns a growing list of ids into text, never splitting a UTF-8 sequence: bytes of an unfinished
// character are held back. Equal to Decode of all ids once Finish was called.
class IncrementalDetokenizer {
 public:
  // `tokenizer` outlives it.
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens);

  // Adds one id; returns the text that became certain.
  std::string Add(int32_t id);

  // Whatever is left, an incomplete character as U+FFFD.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;
};

}  // namespace assay::engine
