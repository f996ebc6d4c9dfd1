#include "coordinator/spec/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/status.h"

namespace assay::coordinator {
namespace {

constexpr size_t kMaxDepth = 8;  // a spec needs 4
constexpr int kMaxNodes = 100'000;

SpecPosition Position(const YAML::Mark& mark) { return {mark.line + 1, mark.column + 1}; }

// Collects the parser's events. yaml-cpp goes on until the document ends, so after the first error
// everything is ignored.
class TreeBuilder final : public YAML::EventHandler {
 public:
  YamlNode root;
  bool has_root = false;
  std::string error;
  SpecPosition error_where;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (Refuse(mark, "?", anchor)) return;
    YamlNode node;
    node.where = Position(mark);
    Put(std::move(node));
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(Position(mark), "anchors and aliases are not allowed; write the value out");
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (Refuse(mark, tag, anchor)) return;
    YamlNode node;
    node.kind = YamlNode::Kind::kScalar;
    node.text = value;
    node.quoted = tag == "!";
    node.where = Position(mark);
    Put(std::move(node));
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kSequence, mark, tag, anchor);
  }
  void OnSequenceEnd() override { Close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(YamlNode::Kind::kMapping, mark, tag, anchor);
  }
  void OnMapEnd() override { Close(); }

 private:
  void Fail(SpecPosition where, std::string message) {
    if (!error.empty()) return;
    error = std::move(message);
    error_where = where;
  }

  // True when the node is not taken: an error now or before.
  bool Refuse(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) {
      Fail(Position(mark), "anchors and aliases are not allowed; write the value out");
    } else if (!tag.empty() && tag != "?" && tag != "!") {
      Fail(Position(mark), "tags are not allowed; write the plain value");
    } else if (++num_nodes_ > kMaxNodes) {
      Fail(Position(mark), fmt::format("more than {} values", kMaxNodes));
    }
    return !error.empty();
  }

  void Open(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
            YAML::anchor_t anchor) {
    if (Refuse(mark, tag, anchor)) return;
    if (open_.size() >= kMaxDepth) {
      Fail(Position(mark), fmt::format("nested more than {} deep", kMaxDepth));
      return;
    }
    YamlNode node;
    node.kind = kind;
    node.where = Position(mark);
    open_.push_back(std::move(node));
  }

  void Close() {
    if (!error.empty()) return;
    YamlNode node = std::move(open_.back());
    open_.pop_back();
    Put(std::move(node));
  }

  // Adds a complete node to what is open: in a mapping, keys and values take turns.
  void Put(YamlNode node) {
    if (open_.empty()) {
      root = std::move(node);
      has_root = true;
      return;
    }
    YamlNode& parent = open_.back();
    const bool is_key =
        parent.kind == YamlNode::Kind::kMapping && parent.keys.size() == parent.values.size();
    if (!is_key) {
      parent.values.push_back(std::move(node));
      return;
    }
    if (node.kind != YamlNode::Kind::kScalar) {
      Fail(node.where, "a key must be a plain word");
      return;
    }
    const auto same = std::find_if(parent.keys.begin(), parent.keys.end(),
                                   [&](const YamlNode::Key& key) { return key.name == node.text; });
    if (same != parent.keys.end()) {
      Fail(node.where, fmt::format("key '{}' stands at line {} already", node.text.substr(0, 60),
                                   same->where.line));
      return;
    }
    if (parent.keys.size() >= 1000) {
      Fail(node.where, "a mapping with more than 1000 keys");
      return;
    }
    parent.keys.push_back({std::move(node.text), node.where});
  }

  std::vector<YamlNode> open_;
  int num_nodes_ = 0;
};

absl::Status ErrorAt(const std::string& file_name, SpecPosition where, std::string_view message) {
  return InvalidArgument("{}:{}:{}: {}", file_name, where.line, where.column, message);
}

// The offset of the first byte that is not UTF-8 or is a control character; npos when all is well.
size_t FindBadByte(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80) {
      const bool control =
          (byte < 0x20 && byte != '\n' && byte != '\t' && byte != '\r') || byte == 0x7f;
      if (control) return i;
      ++i;
      continue;
    }
    const int length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    if (byte < 0xc2 || byte > 0xf4 || i + static_cast<size_t>(length) > text.size()) return i;
    uint32_t code = byte & (0x7f >> length);
    for (int k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<size_t>(k)]);
      if ((next & 0xc0) != 0x80) return i;
      code = code << 6 | (next & 0x3f);
    }
    const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
    if (overlong || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return i;
    i += static_cast<size_t>(length);
  }
  return std::string_view::npos;
}

SpecPosition PositionOfByte(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const size_t line_start = before.rfind('\n');
  return {
      static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
      static_cast<int>(line_start == std::string_view::npos ? offset + 1 : offset - line_start)};
}

}  // namespace

absl::StatusOr<YamlNode> ParseYaml(const std::string& text, const std::string& file_name) {
  if (static_cast<int64_t>(text.size()) > kMaxSpecBytes) {
    return InvalidArgument("{}: {} bytes; a spec has at most {}", file_name, text.size(),
                           kMaxSpecBytes);
  }
  if (const size_t bad = FindBadByte(text); bad != std::string_view::npos) {
    return ErrorAt(
        file_name, PositionOfByte(text, bad),
        fmt::format("byte 0x{:02x} is not UTF-8 text", static_cast<unsigned char>(text[bad])));
  }
  std::istringstream stream(text);
  TreeBuilder builder;
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    TreeBuilder second;
    if (builder.error.empty() && parser.HandleNextDocument(second)) {
      return ErrorAt(file_name, second.root.where, "a second YAML document; a spec is one");
    }
  } catch (const YAML::Exception& error) {
    if (builder.error.empty()) {
      return ErrorAt(file_name, Position(error.mark), "not YAML: " + error.msg);
    }
  }
  if (!builder.error.empty()) return ErrorAt(file_name, builder.error_where, builder.error);
  if (!builder.has_root) return ErrorAt(file_name, {1, 1}, "the file is empty");
  return std::move(builder.root);
}

}  // namespace assay::coordinator
