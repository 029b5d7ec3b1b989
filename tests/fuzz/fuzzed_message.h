#ifndef HOTLORA_TESTS_FUZZ_FUZZED_MESSAGE_H_
#define HOTLORA_TESTS_FUZZ_FUZZED_MESSAGE_H_

#include <memory>

#include <google/protobuf/message.h>

namespace hotlora {

// An empty message of the type that a target parses; the target defines it for message_mutator.cc.
std::unique_ptr<google::protobuf::Message> NewFuzzedMessage();

}  // namespace hotlora

#endif  // HOTLORA_TESTS_FUZZ_FUZZED_MESSAGE_H_
