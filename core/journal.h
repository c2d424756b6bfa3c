// The journal: an append-only file of chained, checksummed records, one an operation.
//
// Why what recovery makes of it is right.
// A record's `chain` is the checksum of its kind, sequence number and body, seeded with the chain
// of the record before it. So a record is valid only where the very same records stand before it:
// no older record, no other file's and no half-written one can be taken for the next.
// A *mark* says up to which place of the file everything (element data, heap, journal) is known to
// be on disk; it is written after the sync that made it so, while other records may have come in
// between. From that follow the two rules of scan_journal():
//  1. The records up to the first one that is torn or unchained are the journal. If a mark behind
//     that place vouches for it, something that had been on disk is damaged: `corrupt` (a mark
//     names its own file, place and checksum, so it is recognised without the chain). Otherwise
//     what is cut off was never acknowledged as synced.
//  2. Records that no mark vouches for are whole, but their data need not be: they begin at
//     `marked`; recovery checks their data by checksum and cuts at the first that does not match.
// A record counts when write() has returned (it is then in the page cache: the death of the daemon
// does not touch it) and, for a loss of power, when a later mark was written.
//
// Layout: FORMAT.md, "Journal".
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/posix_file.h"

namespace accrete {

enum class RecordKind : std::uint32_t { delta = 1, mark = 2 };

// Blocks are held ahead of a journal's end for what makes room on a full disk: frames can be taken
// out and thrown away when nothing can come in. How many bytes of them a record has to leave.
inline constexpr std::uint64_t kept_from_growth = 32 << 10;   // for all that follow
inline constexpr std::uint64_t kept_from_removal = 12 << 10;  // for what sets space free
inline constexpr std::uint64_t kept_from_discard = 2 << 10;   // for the marks that let it be reused

struct RecordView {
  RecordKind kind;
  std::uint64_t sequence;  // 1, 2, … across all journals of a cube
  std::span<const std::byte> body;
  std::uint64_t end;  // file offset behind it
  std::uint64_t chain;
};

struct JournalScan {
  std::vector<RecordView> records;  // views into the bytes that were scanned
  std::size_t marked = 0;           // records[0, marked) and their data had been on disk
  bool header_good = false;
  bool corrupt = false;  // a mark vouches for what is not whole: the header, or the next record
  std::uint64_t start_chain = 0;     // of the header: the chain of the previous journal's end
  std::uint64_t start_sequence = 0;  // sequence number of the previous journal's last record
  std::uint64_t start_end = 0;       // where the first record begins
};

// Pure. `bytes`: the whole file. `cube` and `generation` must match its header.
JournalScan scan_journal(std::span<const std::byte> bytes, std::uint64_t cube,
                         std::uint64_t generation);

std::string journal_name(std::uint64_t generation);  // "journal.000001"

// The end of a journal, to append to. Not thread-safe: the cube's commit lock guards it.
class Journal {
 public:
  // A new file whose first record will follow `sequence` and `chain`. EEXIST is overwritten (a
  // journal that no checkpoint or earlier journal leads to).
  static Result<Journal> create(const PosixFile& directory, std::uint64_t cube,
                                std::uint64_t generation, std::uint64_t sequence,
                                std::uint64_t chain);
  // An existing one as scanned, cut behind its first `records` records.
  static Result<Journal> resume(const PosixFile& directory, std::uint64_t cube,
                                std::uint64_t generation, const JournalScan& scan,
                                std::size_t records);

  // Appends one record by one write, which leaves `kept` bytes of the blocks that are held. ENOSPC,
  // EDQUOT: it would not. On failure the journal is as before.
  Status append(RecordKind kind, std::string_view body, std::uint64_t kept = 0);
  // Vouches for everything in front of `covered_end`, an earlier end().
  Status append_mark(std::uint64_t covered_end);
  Status sync() const { return file_.sync_data(); }

  std::uint64_t generation() const { return generation_; }
  std::uint64_t start_sequence() const {
    return start_sequence_;
  }  // of the record before its first
  std::uint64_t start_chain() const { return start_chain_; }
  std::uint64_t sequence() const { return sequence_; }
  std::uint64_t chain() const { return chain_; }
  std::uint64_t end() const { return end_; }
  const PosixFile& file() const { return file_; }

 private:
  Journal(PosixFile file, std::uint64_t cube, std::uint64_t generation, std::uint64_t sequence,
          std::uint64_t chain, std::uint64_t end)
      : file_(std::move(file)),
        cube_(cube),
        generation_(generation),
        start_sequence_(sequence),
        start_chain_(chain),
        sequence_(sequence),
        chain_(chain),
        end_(end) {}
  // Holds blocks for that many bytes more, and some that come after them.
  Status reserve(std::uint64_t bytes);
  Status note_reserved();

  PosixFile file_;
  std::uint64_t cube_;
  std::uint64_t generation_;
  std::uint64_t start_sequence_;
  std::uint64_t start_chain_;
  std::uint64_t sequence_;
  std::uint64_t chain_;
  std::uint64_t end_;
  std::uint64_t reserved_ = 0;  // file offset up to which blocks are allocated,
  std::uint64_t possible_ = 0;  // and that up to which they may be
};

}  // namespace accrete
