#ifndef HOTLORA_SRC_BASE_NAMED_THREAD_H_
#define HOTLORA_SRC_BASE_NAMED_THREAD_H_

#include <pthread.h>

#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "src/base/logging.h"

namespace hotlora {

// A thread with a name that shows in `top -H` and debuggers (at most 15 characters). An exception that leaves `body` is
// logged and ends the process: each body catches what requests and files can cause itself.
inline std::thread StartNamedThread(std::string name, std::function<void()> body) {
  return std::thread([name = std::move(name), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
    try {
      body();
    } catch (const std::exception& error) {
      LogError("thread ", name, " died: ", error.what());
      FlushLog();
      std::terminate();
    }
  });
}

}  // namespace hotlora

#endif  // HOTLORA_SRC_BASE_NAMED_THREAD_H_
