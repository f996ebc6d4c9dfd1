#include "engine/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "base/status.h"

namespace assay::engine {
namespace {

constexpr char32_t kMaxCodePoint = 0x10FFFF;

struct Range {
  char32_t first;
  char32_t last;
  uint8_t char_class;
};

// Characters that Unicode 15.1 and 16 added to 15.0, by general category.
constexpr Range kSinceUnicode15[] = {
    {0x1C89, 0x1C8A, kLetter},        {0xA7CB, 0xA7CD, kLetter},
    {0xA7DA, 0xA7DC, kLetter},        {0x105C0, 0x105F3, kLetter},
    {0x10D4A, 0x10D65, kLetter},      {0x10D6F, 0x10D85, kLetter},
    {0x10EC2, 0x10EC4, kLetter},      {0x11380, 0x11389, kLetter},
    {0x1138B, 0x1138B, kLetter},      {0x1138E, 0x1138E, kLetter},
    {0x11390, 0x113B5, kLetter},      {0x113B7, 0x113B7, kLetter},
    {0x113D1, 0x113D1, kLetter},      {0x113D3, 0x113D3, kLetter},
    {0x11BC0, 0x11BE0, kLetter},      {0x13460, 0x143FA, kLetter},
    {0x16100, 0x1611D, kLetter},      {0x16D40, 0x16D6C, kLetter},
    {0x18CFF, 0x18CFF, kLetter},      {0x1E5D0, 0x1E5ED, kLetter},
    {0x1E5F0, 0x1E5F0, kLetter},      {0x2EBF0, 0x2EE5D, kLetter},
    {0x10D40, 0x10D49, kNumber},      {0x116D0, 0x116E3, kNumber},
    {0x11BF0, 0x11BF9, kNumber},      {0x16130, 0x16139, kNumber},
    {0x16D70, 0x16D79, kNumber},      {0x1CCF0, 0x1CCF9, kNumber},
    {0x1E5F1, 0x1E5FA, kNumber},      {0x0897, 0x0897, kMark},
    {0x10D69, 0x10D6D, kMark},        {0x10EFC, 0x10EFC, kMark},
    {0x113B8, 0x113C0, kMark},        {0x113C2, 0x113C2, kMark},
    {0x113C5, 0x113C5, kMark},        {0x113C7, 0x113CA, kMark},
    {0x113CC, 0x113D0, kMark},        {0x113D2, 0x113D2, kMark},
    {0x113E1, 0x113E2, kMark},        {0x11F5A, 0x11F5A, kMark},
    {0x1611E, 0x1612F, kMark},        {0x1E5EE, 0x1E5EF, kMark},
    {0x1B4E, 0x1B4F, kPunctuation},   {0x1B7F, 0x1B7F, kPunctuation},
    {0x10D6E, 0x10D6E, kPunctuation}, {0x113D4, 0x113D5, kPunctuation},
    {0x113D7, 0x113D8, kPunctuation}, {0x11BE1, 0x11BE1, kPunctuation},
    {0x16D6D, 0x16D6F, kPunctuation}, {0x1E5FF, 0x1E5FF, kPunctuation},
    {0x2427, 0x2429, kSymbol},        {0x2FFC, 0x2FFF, kSymbol},
    {0x31E4, 0x31E5, kSymbol},        {0x31EF, 0x31EF, kSymbol},
    {0x10D8E, 0x10D8F, kSymbol},      {0x1CC00, 0x1CCEF, kSymbol},
    {0x1CD00, 0x1CEB3, kSymbol},      {0x1F8B2, 0x1F8BB, kSymbol},
    {0x1F8C0, 0x1F8C1, kSymbol},      {0x1FA89, 0x1FA89, kSymbol},
    {0x1FA8F, 0x1FA8F, kSymbol},      {0x1FABE, 0x1FABE, kSymbol},
    {0x1FAC6, 0x1FAC6, kSymbol},      {0x1FADC, 0x1FADC, kSymbol},
    {0x1FADF, 0x1FADF, kSymbol},      {0x1FAE9, 0x1FAE9, kSymbol},
    {0x1FBCB, 0x1FBEF, kSymbol},
};

// What NFC leaves alone though Unicode 15 gives it a combining class or a composition: the
// reference normalizes by the tables of Unicode 10, where these were not assigned.
constexpr Range kSinceUnicode10[] = {
    {0x7FD, 0x7FD, 0},     {0x898, 0x89F, 0},     {0x8CA, 0x8D3, 0},     {0x9FE, 0x9FE, 0},
    {0xC3C, 0xC3C, 0},     {0xD3B, 0xD3C, 0},     {0xEBA, 0xEBA, 0},     {0x1715, 0x1715, 0},
    {0x1ABF, 0x1ACE, 0},   {0x1DF6, 0x1DFA, 0},   {0xA82C, 0xA82C, 0},   {0x10D24, 0x10D27, 0},
    {0x10EAB, 0x10EAC, 0}, {0x10EFD, 0x10EFF, 0}, {0x10F46, 0x10F50, 0}, {0x10F82, 0x10F85, 0},
    {0x11070, 0x11070, 0}, {0x1133B, 0x1133B, 0}, {0x1145E, 0x1145E, 0}, {0x11839, 0x1183A, 0},
    {0x11930, 0x11930, 0}, {0x11938, 0x11938, 0}, {0x1193D, 0x1193E, 0}, {0x11943, 0x11943, 0},
    {0x119E0, 0x119E0, 0}, {0x11A34, 0x11A34, 0}, {0x11A47, 0x11A47, 0}, {0x11A99, 0x11A99, 0},
    {0x11D42, 0x11D42, 0}, {0x11D44, 0x11D45, 0}, {0x11D97, 0x11D97, 0}, {0x11F41, 0x11F42, 0},
    {0x16FF0, 0x16FF1, 0}, {0x1E08F, 0x1E08F, 0}, {0x1E130, 0x1E136, 0}, {0x1E2AE, 0x1E2AE, 0},
    {0x1E2EC, 0x1E2EF, 0}, {0x1E4EC, 0x1E4EF, 0},
};

// The property White_Space, whole.
constexpr Range kSpaces[] = {
    {0x0009, 0x000D, kSpace}, {0x0020, 0x0020, kSpace}, {0x0085, 0x0085, kSpace},
    {0x00A0, 0x00A0, kSpace}, {0x1680, 0x1680, kSpace}, {0x2000, 0x200A, kSpace},
    {0x2028, 0x2029, kSpace}, {0x202F, 0x202F, kSpace}, {0x205F, 0x205F, kSpace},
    {0x3000, 0x3000, kSpace},
};

// Vowels and trailing consonants of Hangul: they compose with the character before them.
constexpr Range kComposingJamo[] = {{0x1161, 0x1175, kNormalizes}, {0x11A8, 0x11C2, kNormalizes}};

template <size_t kNumRanges>
bool InRanges(const Range (&ranges)[kNumRanges], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const Range& range) { return range.first <= c && c <= range.last; });
}

uint8_t CategoryClass(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return kNumber;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kMark;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      return kPunctuation;
    case UTF8PROC_CATEGORY_SM:
    case UTF8PROC_CATEGORY_SC:
    case UTF8PROC_CATEGORY_SK:
    case UTF8PROC_CATEGORY_SO:
      return kSymbol;
    default:
      return 0;
  }
}

// The canonical decomposition of `c`, at most four characters long in any edition of Unicode.
std::vector<utf8proc_int32_t> Decompose(char32_t c) {
  std::vector<utf8proc_int32_t> parts(8);
  const utf8proc_ssize_t num_parts = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c), parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
      UTF8PROC_DECOMPOSE, nullptr);
  ASSAY_CHECK(num_parts > 0 && num_parts <= 8, "code point {:#x}", static_cast<uint32_t>(c));
  parts.resize(static_cast<size_t>(num_parts));
  return parts;
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Sorts each run of marks by combining class. (utf8proc's own ordering takes quadratic time on a
// long run, and text comes from outside.)
void OrderMarks(std::vector<utf8proc_int32_t>* chars) {
  for (auto begin = chars->begin(); begin != chars->end();) {
    const auto end = std::find_if(begin, chars->end(),
                                  [](utf8proc_int32_t c) { return CombiningClass(c) == 0; });
    if (end - begin > 1) {
      std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return CombiningClass(a) < CombiningClass(b);
      });
    }
    begin = end == chars->end() ? end : end + 1;
  }
}

// Composes decomposed, ordered characters.
void Compose(std::vector<utf8proc_int32_t>* chars) {
  const utf8proc_ssize_t num_chars =
      utf8proc_normalize_utf32(chars->data(), static_cast<utf8proc_ssize_t>(chars->size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  ASSAY_CHECK(num_chars >= 0);
  chars->resize(static_cast<size_t>(num_chars));
}

void AppendNfc(std::string_view text, std::string* composed) {
  std::vector<utf8proc_int32_t> chars;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = DecodeChar(text.data() + i);
    for (const utf8proc_int32_t part : Decompose(c.code_point)) chars.push_back(part);
    i += c.num_bytes;
  }
  OrderMarks(&chars);
  Compose(&chars);
  for (const utf8proc_int32_t c : chars) AppendUtf8(static_cast<char32_t>(c), composed);
}

// False for a mark that is younger than the tables of NFC (kSinceUnicode10).
bool IsStarter(std::string_view text, size_t i) {
  return CombiningClass(static_cast<utf8proc_int32_t>(DecodeChar(&text[i]).code_point)) == 0;
}

// Sets kNormalizes on what composes backwards, reorders, or does not survive NFC alone. Everything
// below U+0300 is safe: NFC acts there only together with a later character.
void MarkNormalizing(std::vector<uint8_t>* classes) {
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) {
    if (c >= 0xAC00 && c <= 0xD7A3) continue;  // Hangul syllables: kComposingJamo
    const utf8proc_property_t* const property =
        utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
    if (property->combining_class != 0) (*classes)[c] |= kNormalizes;
    if (property->decomp_seqindex == UINT16_MAX || property->decomp_type != 0) continue;
    std::vector<utf8proc_int32_t> parts = Decompose(c);
    for (size_t i = 1; i < parts.size(); ++i) {
      (*classes)[static_cast<size_t>(parts[i])] |= kNormalizes;
    }
    Compose(&parts);
    if (parts.size() != 1 || parts[0] != static_cast<utf8proc_int32_t>(c)) {
      (*classes)[c] |= kNormalizes;
    }
  }
}

}  // namespace

CharClasses::CharClasses() {
  std::vector<uint8_t> classes(kMaxCodePoint + 1);
  for (char32_t c = 0; c <= kMaxCodePoint; ++c) classes[c] = CategoryClass(c);
  for (const Range& range : kSinceUnicode15) {
    for (char32_t c = range.first; c <= range.last; ++c) classes[c] = range.char_class;
  }
  MarkNormalizing(&classes);
  for (const Range& range : kSinceUnicode10) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      classes[c] = static_cast<uint8_t>(classes[c] & ~kNormalizes);
    }
  }
  for (const Range& range : kComposingJamo) {
    for (char32_t c = range.first; c <= range.last; ++c) classes[c] |= range.char_class;
  }
  for (const Range& range : kSpaces) {
    for (char32_t c = range.first; c <= range.last; ++c) classes[c] |= range.char_class;
  }

  std::copy_n(classes.begin(), ascii_.size(), ascii_.begin());
  std::map<std::string_view, uint16_t> known_blocks;
  for (size_t block = 0; block < block_of_.size(); ++block) {
    const std::string_view content(reinterpret_cast<const char*>(classes.data()) + block * 256,
                                   256);
    const auto [entry, is_new] =
        known_blocks.try_emplace(content, static_cast<uint16_t>(known_blocks.size()));
    block_of_[block] = entry->second;
    if (is_new) blocks_.insert(blocks_.end(), content.begin(), content.end());
  }
}

const CharClasses& CharClasses::Get() {
  static const CharClasses* const kClasses = new CharClasses;
  return *kClasses;
}

void AppendUtf8(char32_t code_point, std::string* text) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t num_bytes =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
  text->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(num_bytes));
}

bool IsWordChar(char32_t code_point) {
  // Alphabetic beyond letters, letter numbers and marks: the enclosed Latin letters.
  constexpr Range kEnclosedLetters[] = {
      {0x24B6, 0x24E9, 0}, {0x1F130, 0x1F149, 0}, {0x1F150, 0x1F169, 0}, {0x1F170, 0x1F189, 0}};
  if (code_point == 0x200C || code_point == 0x200D) return true;  // joiners
  if (InRanges(kEnclosedLetters, code_point)) return true;
  if (CharClasses::Get()[code_point] & (kLetter | kMark)) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool NeedsNfc(std::string_view text) {
  const CharClasses& classes = CharClasses::Get();
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end) {
    // Below U+0300 (first byte 0xCC) nothing changes.
    if (static_cast<uint8_t>(*p) < 0xCC) {
      ++p;
      continue;
    }
    const DecodedChar c = DecodeChar(p);
    if (classes[c.code_point] & kNormalizes) return true;
    p += c.num_bytes;
  }
  return false;
}

std::string Nfc(std::string_view text) {
  const CharClasses& classes = CharClasses::Get();
  std::string composed;
  composed.reserve(text.size());
  size_t copied = 0;  // text before it is in `composed`
  size_t previous = 0;
  for (size_t i = 0; i < text.size();) {
    DecodedChar c = DecodeChar(text.data() + i);
    if (!(classes[c.code_point] & kNormalizes)) {
      previous = i;
      i += c.num_bytes;
      continue;
    }
    // A run of characters that NFC touches acts on the one before it, and on nothing else.
    const size_t begin =
        previous < i && previous >= copied && IsStarter(text, previous) ? previous : i;
    while (i < text.size()) {
      c = DecodeChar(text.data() + i);
      if (!(classes[c.code_point] & kNormalizes)) break;
      i += c.num_bytes;
    }
    composed.append(text, copied, begin - copied);
    AppendNfc(text.substr(begin, i - begin), &composed);
    copied = previous = i;
  }
  composed.append(text, copied);
  return composed;
}

}  // namespace assay::engine
