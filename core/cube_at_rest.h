// What the files of a cube say: the newest whole checkpoint, and of the journals behind it what
// holds. Reading and recovery as in FORMAT.md, for all who need it: opening a cube, checking it,
// repairing it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/checkpoint.h"
#include "core/heap_file.h"
#include "core/journal.h"
#include "core/posix_file.h"

namespace accrete {

// Something in a file of a cube that had been on disk, and is not what was written, or that cannot
// be read.
struct Damage {
  std::string file;
  std::optional<std::uint64_t> offset;  // nothing: all of the file
  std::string sentence;
};

struct CubeAtRest {
  CheckpointFacts facts;         // of the checkpoint that it begins with,
  std::uint64_t generation = 0;  // whose number is this (0: there is none, see Start::nothing),
  std::uint64_t checkpoint_bytes = 0;

  std::shared_ptr<const Snapshot> snapshot;  // in the end
  std::uint64_t sequence = 0;                // of the last record that counts,
  std::uint64_t chain = 0;                   // and its chain
  std::uint64_t last_delta = 0;              // sequence of the newest delta; 0: in no journal
  std::uint64_t durable = 0;                 // sequence up to which marks vouch

  // The last journal of which records count, or none (0).
  std::uint64_t journal_generation = 0;
  std::string journal_bytes;  // into which `journal` points
  JournalScan journal;
  std::size_t kept = 0;                           // its first records count
  std::shared_ptr<const Snapshot> journal_start;  // in front of them

  std::size_t lost = 0;        // whole records, of no mark, whose data are not there
  std::uint64_t torn = 0;      // bytes of the last journal behind the records that count
  std::vector<Damage> damage;  // in the order in which it was met; the cube is read-only then
  // Why the end is not known: what cannot be read now may be whole, and so may be what follows it.
  std::optional<std::string> unread;
  bool boxes_fit = true;  // no box reaches beyond the brick file

  PosixFile brick_file;
  std::uint64_t brick_bytes = 0;  // its length
  // The brick file, with what replacements bring that no mark vouches for; none if it is empty.
  std::shared_ptr<std::byte> bricks;
  bool is_overlaid = false;  // what they bring is in the mapping only
  std::unique_ptr<HeapFile> heap;
  std::uint64_t heap_bytes = 0;  // its length
  std::uint64_t heap_used = 0;   // up to the last text that a frame refers to
};

enum class Stores {
  none,  // nothing on the disk is changed: what replacements bring is laid over
  redo   // it is stored into the brick file
};
enum class Start {
  checkpoint,
  // Where no checkpoint is whole, or its journal does not go on from it, from the first journal
  // alone if more is found then.
  nothing
};

// Takes no lock: nobody writes meanwhile. EIO: no checkpoint is whole, or a file cannot be read or
// is missing; all else is told as damage.
Result<CubeAtRest> read_cube(const PosixFile& directory, Stores stores,
                             Start start = Start::checkpoint);

// The generations of the files "PREFIX.NNNNNN" among these names, newest first.
std::vector<std::uint64_t> generations_of(std::string_view prefix,
                                          const std::vector<std::string>& names);

// All bytes of a file. ENOENT, EIO.
Result<std::string> read_file(const PosixFile& directory, const std::string& name);

// Whether a box lies within so many bytes.
bool lies_within(const Box& box, std::uint64_t brick_bytes);

}  // namespace accrete
