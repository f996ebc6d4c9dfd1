// JSON for --json: messages of the protocol as objects with the fields' own names.
//
// Numbers stay numbers (also 64-bit ones), enums become their lower-case name without the type's
// prefix ("STATE_RUNNING" is "running"), bytes become hexadecimal, fields with their default value
// are written and absent sub-messages are null: a script finds the same keys in every answer.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace assay::cli {

// `message` as one line, without the newline.
std::string MessageJson(const google::protobuf::Message& message);

// JSON text with DEL, C1 controls and bidirectional overrides escaped as well (the JSON library
// escapes only C0): safe on a terminal, and still the same JSON.
std::string EscapeInvisible(const std::string& json);

// "STATE_RUNNING" of an enum whose values start with "STATE_" as "running".
std::string EnumName(const google::protobuf::EnumDescriptor* descriptor, int value);

}  // namespace assay::cli
