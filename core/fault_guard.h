// Access to a mapped file that may fail.
//
// A page that cannot be read, or for which the disk has no room, is SIGBUS where a read() or
// write() had an error. Within run_guarded() that is a false instead of the end of the process.
#pragma once

namespace accrete {

// Calls work(argument), which must touch the mapping only by plain loads and stores, hold no lock
// and own nothing: it is left where it stands. False: it was. Thread-safe; not to be nested.
bool run_guarded(void (*work)(void*), void* argument);

template <class Work>
bool run_guarded(Work& work) {
  return run_guarded([](void* argument) { (*static_cast<Work*>(argument))(); }, &work);
}

}  // namespace accrete
