#include "cli/output/json.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <cctype>
#include <nlohmann/json.hpp>

namespace assay::cli {
namespace {

using Json = nlohmann::ordered_json;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

Json ToJson(const Message& message);

std::string Hexadecimal(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

// One value of a field: element `index` of a repeated one, or the field itself for `index` -1.
Json ValueJson(const Message& message, const FieldDescriptor* field, int index) {
  const Reflection* r = message.GetReflection();
  const bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return one ? r->GetInt32(message, field) : r->GetRepeatedInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_INT64:
      return one ? r->GetInt64(message, field) : r->GetRepeatedInt64(message, field, index);
    case FieldDescriptor::CPPTYPE_UINT32:
      return one ? r->GetUInt32(message, field) : r->GetRepeatedUInt32(message, field, index);
    case FieldDescriptor::CPPTYPE_UINT64:
      return one ? r->GetUInt64(message, field) : r->GetRepeatedUInt64(message, field, index);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return one ? r->GetDouble(message, field) : r->GetRepeatedDouble(message, field, index);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return one ? r->GetFloat(message, field) : r->GetRepeatedFloat(message, field, index);
    case FieldDescriptor::CPPTYPE_BOOL:
      return one ? r->GetBool(message, field) : r->GetRepeatedBool(message, field, index);
    case FieldDescriptor::CPPTYPE_ENUM:
      return EnumName(field->enum_type(), one ? r->GetEnumValue(message, field)
                                              : r->GetRepeatedEnumValue(message, field, index));
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string text =
          one ? r->GetString(message, field) : r->GetRepeatedString(message, field, index);
      return field->type() == FieldDescriptor::TYPE_BYTES ? Hexadecimal(text) : text;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (!one) return ToJson(r->GetRepeatedMessage(message, field, index));
      if (!r->HasField(message, field)) return nullptr;
      return ToJson(r->GetMessage(message, field));
  }
  return nullptr;
}

// A map arrives as repeated entries with the fields 1 (key) and 2 (value).
Json MapJson(const Message& message, const FieldDescriptor* field) {
  Json object = Json::object();
  const Reflection* r = message.GetReflection();
  for (int i = 0; i < r->FieldSize(message, field); ++i) {
    const Message& entry = r->GetRepeatedMessage(message, field, i);
    const Json key = ValueJson(entry, entry.GetDescriptor()->FindFieldByNumber(1), -1);
    object[key.is_string() ? key.get<std::string>() : key.dump()] =
        ValueJson(entry, entry.GetDescriptor()->FindFieldByNumber(2), -1);
  }
  return object;
}

Json ToJson(const Message& message) {
  Json object = Json::object();
  const auto* descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (field->is_map()) {
      object[field->name()] = MapJson(message, field);
    } else if (field->is_repeated()) {
      Json array = Json::array();
      const int size = message.GetReflection()->FieldSize(message, field);
      for (int k = 0; k < size; ++k) array.push_back(ValueJson(message, field, k));
      object[field->name()] = std::move(array);
    } else {
      object[field->name()] = ValueJson(message, field, -1);
    }
  }
  return object;
}

}  // namespace

std::string EnumName(const EnumDescriptor* descriptor, int value) {
  const auto* known = descriptor->FindValueByNumber(value);
  if (known == nullptr) return fmt::format("{}", value);
  // The prefix is that of the zero value, which ends in UNSPECIFIED everywhere.
  static constexpr std::string_view kZero = "UNSPECIFIED";
  std::string prefix = descriptor->FindValueByNumber(0)->name();
  if (prefix.ends_with(kZero)) prefix.resize(prefix.size() - kZero.size());
  std::string name = known->name();
  if (name.starts_with(prefix)) name.erase(0, prefix.size());
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

std::string MessageJson(const Message& message) {
  return EscapeInvisible(ToJson(message).dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string EscapeInvisible(const std::string& json) {
  std::string out;
  out.reserve(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    const auto byte = [&](size_t k) {
      return i + k < json.size() ? static_cast<unsigned char>(json[i + k]) : 0;
    };
    if (byte(0) == 0x7f) {
      out += "\\u007f";
    } else if (byte(0) == 0xc2 && byte(1) >= 0x80 && byte(1) <= 0x9f) {  // U+0080..U+009F
      out += fmt::format("\\u{:04x}", byte(1));
      i += 1;
    } else if (byte(0) == 0xe2 && ((byte(1) == 0x80 && byte(2) >= 0xaa && byte(2) <= 0xae) ||
                                   (byte(1) == 0x81 && byte(2) >= 0xa6 && byte(2) <= 0xa9))) {
      out += fmt::format("\\u{:04x}", 0x2000 + ((byte(1) & 0x3f) << 6) + (byte(2) & 0x3f));
      i += 2;
    } else {
      out += json[i];
    }
  }
  return out;
}

}  // namespace assay::cli
