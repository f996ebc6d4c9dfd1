#include "base/json_check.h"

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"

namespace assay {
namespace {

using Json = nlohmann::json;

// Looks at the events of one pass and keeps no values. A false answer ends the pass.
class Checker final : public nlohmann::json_sax<Json> {
 public:
  Checker(std::string_view what, int max_depth) : what_(what), max_depth_(max_depth) {}

  const absl::Status& status() const { return status_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(std::size_t) override { return Descend(); }
  bool end_object() override { return Ascend(); }
  bool start_array(std::size_t) override { return Descend(); }
  bool end_array() override { return Ascend(); }

  bool key(string_t& name) override {
    if (names_.back().insert(name).second) return true;
    status_ = InvalidArgument("{}: the name '{}' comes twice in one JSON object", what_, name);
    return false;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    status_ = InvalidArgument("{}: not JSON at byte {}: {}", what_, position, error.what());
    return false;
  }

 private:
  bool Descend() {
    if (static_cast<int>(names_.size()) >= max_depth_) {
      status_ = InvalidArgument("{}: JSON nests deeper than {}", what_, max_depth_);
      return false;
    }
    names_.emplace_back();
    return true;
  }
  bool Ascend() {
    names_.pop_back();
    return true;
  }

  const std::string what_;
  const int max_depth_;
  std::vector<std::set<std::string>> names_;  // of each open object; empty for an array
  absl::Status status_;
};

}  // namespace

absl::Status CheckJson(std::string_view text, std::string_view what, int max_depth) {
  Checker checker(what, max_depth);
  const bool ok = Json::sax_parse(text.begin(), text.end(), &checker);
  if (!ok && checker.status().ok()) return InvalidArgument("{}: not JSON", what);
  return checker.status();
}

}  // namespace assay
