// A checkpoint: a whole snapshot as one file of tables, from which a journal goes on.
//
// It is written beside the older one, synced and renamed; the frames' rows are used from its
// mapping as they lie there. Layout: FORMAT.md, "Checkpoint".
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/posix_file.h"
#include "core/snapshot.h"

namespace accrete {

struct CheckpointFacts {
  std::uint64_t cube = 0;       // the cube's uid
  std::int64_t created_ns = 0;  // when the cube was made
  std::uint64_t sequence = 0;   // of the last journal record that is included
  std::uint64_t chain = 0;      // of that record
};

struct Checkpoint {
  CheckpointFacts facts;
  std::shared_ptr<const Snapshot> snapshot;
  std::uint64_t bytes = 0;  // length of the file
};

std::string checkpoint_name(std::uint64_t generation);  // "checkpoint.000001"

struct CheckpointRows {
  std::shared_ptr<const std::byte> rows;  // of the frame table, mapped
  std::uint64_t bytes = 0;                // length of the file
};

// On return the file is durable under its name.
Result<CheckpointRows> write_checkpoint(const PosixFile& directory, std::uint64_t generation,
                                        const CheckpointFacts& facts, const Snapshot& snapshot);

// EIO when it is damaged or of a newer version (the sentence says which), ENOENT when it is not
// there.
Result<Checkpoint> load_checkpoint(const PosixFile& directory, std::uint64_t generation);

}  // namespace accrete
