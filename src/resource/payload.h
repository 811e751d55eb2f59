// A kind's own message <-> the bytes in Record::payload.
#pragma once

#include <string>

#include "stasis/descriptor.h"
#include "stasis/result.h"

namespace stasis::resource {

template <typename Message>
std::string pack(const Message& message) {
  return message.SerializeAsString();
}

// The image was checksummed before, so a payload that does not parse is an image of another version or a
// forged one.
template <typename Message>
Result<Message> unpack(const Record& record) {
  Message message;
  if (!message.ParseFromString(record.payload)) {
    return Error{
        "read the image", record.describe(), "the description does not parse", {}, ErrorCode::kDamaged};
  }
  return message;
}

// Changes the message in a record.
template <typename Message, typename Change>
Result<void> change(Record& record, const Change& how) {
  STASIS_TRY(Message message, unpack<Message>(record));
  how(message);
  record.payload = pack(message);
  return {};
}

}  // namespace stasis::resource
