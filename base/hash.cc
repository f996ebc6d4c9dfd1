#include "base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <cstring>
#include <fstream>
#include <vector>

#include "base/status.h"

namespace assay {
namespace {

std::string ToHex(const unsigned char* bytes, size_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex(size * 2, '0');
  for (size_t i = 0; i < size; ++i) {
    hex[2 * i] = kDigits[bytes[i] >> 4];
    hex[2 * i + 1] = kDigits[bytes[i] & 15];
  }
  return hex;
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }

  std::array<unsigned char, 32> Finish() {
    std::array<unsigned char, 32> digest{};
    unsigned int size = 0;
    ASSAY_CHECK(EVP_DigestFinal_ex(context, digest.data(), &size) == 1 && size == digest.size());
    return digest;
  }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  ASSAY_CHECK(state_->context != nullptr);
  ASSAY_CHECK(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(std::string_view bytes) {
  ASSAY_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

void Sha256::UpdateField(std::string_view field) {
  const uint64_t size = field.size();
  char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>((size >> (8 * i)) & 0xff);
  Update(std::string_view(length, sizeof length));
  Update(field);
}

std::string Sha256::HexDigest() {
  const auto digest = state_->Finish();
  return ToHex(digest.data(), digest.size());
}

std::string Sha256Hex(std::string_view bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.HexDigest();
}

bool EqualInConstantTime(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

absl::StatusOr<std::string> Sha256OfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("{}: cannot open for hashing: {}", path, std::strerror(errno));
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (file) {
    file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    hash.Update(std::string_view(buffer.data(), static_cast<size_t>(file.gcount())));
  }
  if (file.bad()) return Unavailable("{}: read failed while hashing", path);
  return hash.HexDigest();
}

uint64_t Hash64(std::initializer_list<std::string_view> fields) {
  Sha256 hash;
  for (std::string_view field : fields) hash.UpdateField(field);
  const std::string hex = hash.HexDigest();
  return std::stoull(hex.substr(0, 16), nullptr, 16);
}

}  // namespace assay
