// The sandbox in which accretefs-unpack runs zlib and cfitsio on hostile files.
//
// The threat: a file makes one of these libraries run code of the file's author.
//
// What that code can do: read the descriptor of the file under way, use memory up to a limit and
// one processor, and talk to the daemon over the socket. So it can give wrong pixels for this file
// and, as the process is kept, for those that it unpacks later, and put into one what it read in
// another; and it can make the daemon wait, for the time that core/unpacker.h names. It can end.
//
// What it cannot do: open, create, look up, change, rename or remove any file; write to any file at
// all, for the daemon writes what is unpacked, within bounds that it checks itself; make sockets or
// use the network; start a program or a thread; signal, trace or look into another process; make
// memory executable; outlive the daemon. Where it tries, the kernel kills the process, and
// the file is refused. It finds neither environment variables nor other descriptors.
//
// The layers, each of which also stands where others are missing:
// - a filter of system calls (seccomp), an allowlist; everything else kills;
// - no_new_privs, and no way for others of the same user to trace it or read its memory;
// - started by root: the user and group 65534 (nobody), without capabilities;
// - resource limits: memory, no core dumps, no bytes in files, no further descriptor than the one
//   under way, no further processes; and the first to go when the machine's memory runs out;
// - SIGKILL when the thread of the daemon that started it ends.
//
// Processor time is not limited here: the process is kept, and the daemon's clock covers both those
// that spin and those that sleep.
//
// Where the kernel filters no system calls (built without seccomp, or inside some containers and
// emulators) the process goes on without and says so, and the daemon logs it once. The file is not
// to blame for that, a user cannot change it, what is left still holds, and the strict checks of
// all structure before cfitsio sees a file do not depend on it.
//
// Under a sanitizer the process keeps its user, standard error, and all limits but that of core
// dumps, and the calls that the sanitizer's runtime makes are allowed; others fail with EPERM.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"

namespace accrete {

// For good. To be called once, by a process with one thread that keeps nothing open but the socket
// (descriptor 0), standard output and standard error, which lead to /dev/null afterwards. Whatever
// the libraries read from files or the environment they must have read before.
// Gives a sentence on each protection that there is not; an error when the process must not go on.
Result<std::string> enter_sandbox();

// Bounds the memory that the process may have beside its code and files: `bytes`, a fixed amount
// for small things, and never more than half of the machine's. Beyond that malloc() fails.
void bound_memory(std::uint64_t bytes);

// Ends the process with status 0, without what libraries do at the end of one: they make calls that
// are not allowed any more.
[[noreturn]] void leave_sandbox();

}  // namespace accrete
