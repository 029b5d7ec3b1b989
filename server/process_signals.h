#ifndef HOTLORA_SERVER_PROCESS_SIGNALS_H_
#define HOTLORA_SERVER_PROCESS_SIGNALS_H_

namespace hotlora {

// Signals as events that a thread can wait for:
//
//   SIGTERM, SIGINT, SIGQUIT   stop; a second one ends the process at once with 128 + its number
//   SIGHUP                     read the settings again
//   SIGUSR1, SIGUSR2           a line in the log
//   SIGPIPE                    nothing: a caller that goes away is an error of its call alone
//
// No signal handler runs: the signals are blocked everywhere and taken by one thread, so what they set off may lock,
// log and allocate.
class ProcessSignals {
 public:
  enum class Event { kStop, kReload };

  // Blocks the signals in this thread and in all that it starts later, also beyond execv; what comes waits for a
  // ProcessSignals. Async-signal-safe.
  static void Block();
  // Signals do again what they do by default, those that came in the meantime with them.
  static void Unblock();

  // Construct it once, before other threads exist. Its own thread lives as long as the process.
  ProcessSignals();

  // Until this is called, a signal to stop ends the process at once with exit code 0: nothing has begun that would have
  // to be finished.
  void BeginService();

  // Blocks until a signal or RequestStop. A stop comes before a reload; reloads that were not waited for are one.
  Event Wait();

  // As if a signal to stop had come, but before BeginService the process ends with `exit_code`; a further signal still
  // ends it. Thread-safe.
  void RequestStop(int exit_code);

  // What RequestStop was given; 0 without it.
  int exit_code() const;

 private:
  struct State;
  State* const state_;  // never freed: the signal thread has it
};

}  // namespace hotlora

#endif  // HOTLORA_SERVER_PROCESS_SIGNALS_H_
