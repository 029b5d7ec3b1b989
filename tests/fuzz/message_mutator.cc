// Changes a target's message (fuzzed_message.h) as LLVMFuzzerCustomMutator: mostly the value of a field, else bytes.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <google/protobuf/message.h>

#include "tests/fuzz/fuzzed_message.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using Random = std::mt19937;

size_t Below(Random& random, size_t count) { return count == 0 ? 0 : random() % count; }

double AnyReal(Random& random) {
  static constexpr double kReals[] = {0,
                                      -0.0,
                                      0.5,
                                      1,
                                      -1,
                                      10,
                                      100.5,
                                      1e308,
                                      -1e-320,
                                      std::numeric_limits<double>::infinity(),
                                      std::numeric_limits<double>::quiet_NaN()};
  return kReals[Below(random, std::size(kReals))];
}

uint64_t AnyNumber(Random& random) {
  static constexpr uint64_t kNumbers[] = {0, 1, 2, 3, 8, 16, 50, 64, 100, 512, 1000, 4096};
  return Below(random, 4) == 0 ? std::numeric_limits<uint64_t>::max() >> Below(random, 64)
                               : kNumbers[Below(random, std::size(kNumbers))];
}

std::string AnyText(std::string text, Random& random) {
  static constexpr const char* kTexts[] = {
      "",     "ink",       "styles/neon",          "../up", "<lora:ink:0.5>", "(a:1.2)",
      "[[((", "a BREAK b", "\xC3\xA9\xE6\xB0\xB4", "<s0>"};
  if (Below(random, 3) == 0) {
    return kTexts[Below(random, std::size(kTexts))];
  }
  if (Below(random, 64) == 0) {
    while (text.size() < 20'000) {
      text += text + "(a ";
    }
  }
  const size_t size = text.size(), room = size + 4096;
  text.resize(room);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, room));
  return text;
}

// Only fields that stand alone.
void SetValue(Message& message, const FieldDescriptor* field, Random& random) {
  const Reflection* const reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(&message, field, Below(random, 2) == 0);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(&message, field, AnyReal(random));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(&message, field, static_cast<uint32_t>(AnyNumber(random)));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection->SetUInt64(&message, field, AnyNumber(random));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(&message, field, static_cast<int64_t>(AnyNumber(random)));
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(&message, field, static_cast<int32_t>(AnyNumber(random)));
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->SetEnumValue(&message, field, static_cast<int>(AnyNumber(random) % 20) - 1);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(&message, field, AnyText(reflection->GetString(message, field), random));
    default:
      return;
  }
}

void Mutate(Message& message, Random& random) {
  const Reflection* const reflection = message.GetReflection();
  const auto* const descriptor = message.GetDescriptor();
  const FieldDescriptor* const field =
      descriptor->field(static_cast<int>(Below(random, static_cast<size_t>(descriptor->field_count()))));
  if (Below(random, 8) == 0) {
    return reflection->ClearField(&message, field);
  }
  if (!field->is_repeated()) {
    return field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE
               ? Mutate(*reflection->MutableMessage(&message, field), random)
               : SetValue(message, field, random);
  }
  const bool texts = field->cpp_type() == FieldDescriptor::CPPTYPE_STRING;  // else the lists are of messages
  for (size_t count = Below(random, 16) == 0 ? 20 : Below(random, 3); count > 0; --count) {
    texts ? reflection->AddString(&message, field, AnyText("", random)) : (void)reflection->AddMessage(&message, field);
  }
  const int size = reflection->FieldSize(message, field);
  if (size > 0 && !texts) {
    Mutate(*reflection->MutableRepeatedMessage(&message, field, static_cast<int>(Below(random, size))), random);
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  Random random(seed);
  const std::unique_ptr<Message> message = hotlora::NewFuzzedMessage();
  if (Below(random, 4) == 0 || !message->ParseFromArray(data, static_cast<int>(size))) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  Mutate(*message, random);
  const size_t changed = message->ByteSizeLong();
  if (changed > max_size || !message->SerializeToArray(data, static_cast<int>(changed))) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  return changed;
}
