// Runs a fuzz target without libFuzzer: the corpus, every finding that was ever made, and a fixed
// number of mutations of them from a fixed seed, so that the test command has a short run that is
// the same everywhere. The long runs are libFuzzer's (README.md).
//
//   replay CORPUS_DIR [NUM_MUTATIONS]
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

std::vector<Bytes> ReadCorpus(const std::string& directory) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file()) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const std::string& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

size_t Below(std::mt19937& random, size_t limit) { return limit == 0 ? 0 : random() % limit; }

Bytes Mutate(Bytes bytes, const std::vector<Bytes>& corpus, std::mt19937& random) {
  static constexpr uint8_t kInteresting[] = {0,   1,   0x7f, 0x80, 0xff, '"', '{',  '}',  '[',
                                             ']', ',', '-',  '9',  '\n', '%', '\\', 0xc3, 0xed};
  const int num_edits = 1 + static_cast<int>(Below(random, 6));
  for (int edit = 0; edit < num_edits; ++edit) {
    const size_t at = Below(random, bytes.size() + 1);
    const auto here = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (random() % 6) {
      case 0:
        if (at < bytes.size()) bytes[at] ^= static_cast<uint8_t>(1u << (random() % 8));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = kInteresting[Below(random, std::size(kInteresting))];
        break;
      case 2:
        bytes.insert(here, kInteresting[Below(random, std::size(kInteresting))]);
        break;
      case 3:
        bytes.erase(here, here + static_cast<std::ptrdiff_t>(Below(random, bytes.size() - at + 1)));
        break;
      case 4: {  // a piece of another input
        const Bytes& other = corpus[Below(random, corpus.size())];
        const size_t from = Below(random, other.size() + 1);
        const size_t count = std::min(Below(random, 64), other.size() - from);
        const auto first = other.begin() + static_cast<std::ptrdiff_t>(from);
        bytes.insert(here, first, first + static_cast<std::ptrdiff_t>(count));
        break;
      }
      default:  // repeat what is here
        if (bytes.size() < (1u << 16)) {
          const size_t count = std::min(Below(random, 32), bytes.size() - at);
          const Bytes piece(here, here + static_cast<std::ptrdiff_t>(count));
          bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), piece.begin(), piece.end());
        }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS_DIR [NUM_MUTATIONS]\n", argv[0]);
    return 64;
  }
  const std::vector<Bytes> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: no corpus there\n", argv[1]);
    return 66;
  }
  for (const Bytes& bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  const int num_mutations = argc > 2 ? std::atoi(argv[2]) : 2000;
  std::mt19937 random(20261122);
  for (int i = 0; i < num_mutations; ++i) {
    const Bytes bytes = Mutate(corpus[Below(random, corpus.size())], corpus, random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu inputs of the corpus and %d mutations: no crash\n", corpus.size(),
              num_mutations);
  return 0;
}
