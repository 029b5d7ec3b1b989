#ifndef HOTLORA_SERVER_STOP_SIGNAL_H_
#define HOTLORA_SERVER_STOP_SIGNAL_H_

namespace hotlora {

// SIGTERM and SIGINT as an event that a thread can wait for. No signal handler runs: both are
// blocked everywhere and taken by one thread, so what they set off may lock, log and allocate.
class StopSignal {
 public:
  // Blocks the signals in this thread and in all it starts later: construct it first in main, once.
  // The thread it starts lives as long as the process.
  StopSignal();

  // Until this is called a signal ends the process at once with exit code 0: there is nothing to
  // finish yet. After it the first one ends Wait, and a second ends the process at once with 128 +
  // its number.
  void BeginService();

  // Blocks until the first signal or Request.
  void Wait();

  // As if a signal had come; a further one still ends the process. Thread-safe.
  void Request();

 private:
  struct State;
  State* const state_;  // never freed: the signal thread has it
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_STOP_SIGNAL_H_
