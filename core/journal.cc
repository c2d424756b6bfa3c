#include "core/journal.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "core/bytes.h"
#include "core/checksum.h"

namespace accrete {

namespace {

constexpr std::string_view file_magic = "ACRJRNL1";
constexpr std::uint64_t mark_magic = 0x314b52414d524341;  // "ACRMARK1"
constexpr std::size_t header_bytes = 48;
constexpr std::size_t record_header_bytes = 24;
constexpr std::size_t mark_body_bytes = 48;
constexpr std::size_t alignment = 8;
constexpr std::uint64_t reserve_step = 64 << 10;
constexpr std::uint64_t reserve_ahead = 16 << 10;  // what is held is filled up before it is needed
constexpr std::uint64_t block_bytes = 4096;
constexpr std::uint64_t largest_body = std::uint64_t{1} << 31;

std::string header(std::uint64_t cube, std::uint64_t generation, std::uint64_t sequence,
                   std::uint64_t chain) {
  ByteWriter out;
  out.put_raw(file_magic);
  out.put(cube);
  out.put(generation);
  out.put(sequence);
  out.put(chain);
  out.put(checksum(as_bytes(out.bytes())));
  return out.take();
}

std::uint64_t link(std::uint64_t chain, std::uint32_t kind, std::uint32_t length,
                   std::uint64_t sequence, std::span<const std::byte> body) {
  ByteWriter lead;
  lead.put(chain);
  lead.put(kind);
  lead.put(length);
  lead.put(sequence);
  return checksum(body, checksum(as_bytes(lead.bytes())));
}

std::string mark_body(std::uint64_t cube, std::uint64_t generation, std::uint64_t at,
                      std::uint64_t covered_end) {
  ByteWriter out;
  out.put(mark_magic);
  out.put(cube);
  out.put(generation);
  out.put(at);
  out.put(covered_end);
  out.put(checksum(as_bytes(out.bytes())));
  return out.take();
}

// What the mark at `at` vouches for; 0 when there is none of this journal.
std::uint64_t mark_at(std::span<const std::byte> bytes, std::uint64_t at, std::uint64_t cube,
                      std::uint64_t generation) {
  if (at + record_header_bytes + mark_body_bytes > bytes.size()) return 0;
  const auto body = bytes.subspan(at + record_header_bytes, mark_body_bytes);
  if (ByteReader(body).get<std::uint64_t>() != mark_magic) return 0;
  ByteReader in(body.subspan(32));
  const auto covered_end = in.get<std::uint64_t>();
  return as_text(body) == mark_body(cube, generation, at, covered_end) ? covered_end : 0;
}

// Does a mark behind `from` vouch for what stands there?
bool vouched_for(std::span<const std::byte> bytes, std::uint64_t from, std::uint64_t cube,
                 std::uint64_t generation) {
  for (std::uint64_t at = from; at < bytes.size(); at += alignment)
    if (mark_at(bytes, at, cube, generation) > from) return true;
  return false;
}

// False: it is not this journal's.
bool read_header(std::span<const std::byte> bytes, std::uint64_t cube, std::uint64_t generation,
                 JournalScan& scan) {
  if (bytes.size() < header_bytes || as_text(bytes.first(file_magic.size())) != file_magic)
    return false;
  ByteReader in(bytes.subspan(file_magic.size()));
  if (in.get<std::uint64_t>() != cube || in.get<std::uint64_t>() != generation) return false;
  scan.start_sequence = in.get<std::uint64_t>();
  scan.start_chain = in.get<std::uint64_t>();
  return in.get<std::uint64_t>() == checksum(bytes.first(header_bytes - 8));
}

std::uint64_t aligned(std::uint64_t n) {
  return (n + alignment - 1) / alignment * alignment;
}

}  // namespace

std::string journal_name(std::uint64_t generation) {
  char name[32];
  std::snprintf(name, sizeof name, "journal.%06llu", static_cast<unsigned long long>(generation));
  return name;
}

JournalScan scan_journal(std::span<const std::byte> bytes, std::uint64_t cube,
                         std::uint64_t generation) {
  JournalScan scan;
  scan.header_good = read_header(bytes, cube, generation, scan);
  if (!scan.header_good) {
    scan.corrupt = vouched_for(bytes, 0, cube, generation);
    return scan;
  }
  scan.start_end = header_bytes;

  std::uint64_t at = header_bytes;
  std::uint64_t chain = scan.start_chain;
  std::uint64_t sequence = scan.start_sequence;
  while (at + record_header_bytes <= bytes.size()) {
    ByteReader head(bytes.subspan(at, record_header_bytes));
    const auto length = head.get<std::uint32_t>();
    const auto kind = head.get<std::uint32_t>();
    const auto number = head.get<std::uint64_t>();
    const auto stored = head.get<std::uint64_t>();
    const std::uint64_t end = aligned(at + record_header_bytes + length);
    if (number != sequence + 1 || end > bytes.size()) break;
    const auto body = bytes.subspan(at + record_header_bytes, length);
    if (stored != link(chain, kind, length, number, body)) break;
    if (kind != 1 && kind != 2) break;
    scan.records.push_back({static_cast<RecordKind>(kind), number, body, end, stored});
    if (kind == static_cast<std::uint32_t>(RecordKind::mark)) {
      const std::uint64_t covered_end = mark_at(bytes, at, cube, generation);
      while (scan.marked < scan.records.size() && scan.records[scan.marked].end <= covered_end)
        ++scan.marked;
    }
    at = end;
    chain = stored;
    sequence = number;
  }
  scan.corrupt = vouched_for(bytes, at, cube, generation);
  return scan;
}

Result<Journal> Journal::create(const PosixFile& directory, std::uint64_t cube,
                                std::uint64_t generation, std::uint64_t sequence,
                                std::uint64_t chain) {
  ACCRETE_TRY(PosixFile file, PosixFile::open_at(directory, journal_name(generation),
                                                 O_RDWR | O_CREAT | O_TRUNC, 0600));
  const std::string head = header(cube, generation, sequence, chain);
  Journal journal(std::move(file), cube, generation, sequence, chain, head.size());
  const auto fill = [&]() -> Status {
    ACCRETE_CHECK(journal.file_.write(0, as_bytes(head)));
    ACCRETE_CHECK(journal.reserve(reserve_step));
    ACCRETE_CHECK(journal.file_.sync_all());
    return directory.sync_all();
  };
  if (Status filled = fill(); !filled.ok()) {
    (void)unlink_at(directory, journal_name(generation), false);
    return std::move(filled).error();
  }
  return journal;
}

Result<Journal> Journal::resume(const PosixFile& directory, std::uint64_t cube,
                                std::uint64_t generation, const JournalScan& scan,
                                std::size_t records) {
  ACCRETE_TRY(PosixFile file, PosixFile::open_at(directory, journal_name(generation), O_RDWR));
  Journal journal(std::move(file), cube, generation, scan.start_sequence, scan.start_chain,
                  scan.start_end);
  if (records > 0) {
    const RecordView& last = scan.records[records - 1];
    journal.sequence_ = last.sequence;
    journal.chain_ = last.chain;
    journal.end_ = last.end;
  }
  // Only when there is something to cut: it would also free the blocks held ahead.
  ACCRETE_TRY(const std::uint64_t size, journal.file_.size());
  if (size != journal.end_) ACCRETE_CHECK(journal.file_.truncate(journal.end_));
  ACCRETE_CHECK(journal.note_reserved());
  (void)journal.reserve(reserve_step);  // on a full disk what there is has to do
  return journal;
}

// A journal has no holes: its blocks reach as far as their number says, but for one or two in which
// the host's filesystem may keep their places.
Status Journal::note_reserved() {
  ACCRETE_TRY(const struct stat status, file_.status());
  const std::uint64_t held = static_cast<std::uint64_t>(status.st_blocks) * 512;
  reserved_ = std::max(end_, held - std::min(held, 2 * block_bytes));
  possible_ = std::max(end_, held);
  return {};
}

// Only what is not held yet is asked for: a failure gives back all of its range.
Status Journal::reserve(std::uint64_t bytes) {
  if (end_ + bytes <= reserved_) return {};
  const std::uint64_t begin = std::max({end_, reserved_, possible_});
  const std::uint64_t end = end_ + bytes + reserve_ahead;
  ACCRETE_CHECK(file_.allocate(begin, end - begin, false));
  reserved_ = possible_ = end;
  return {};
}

Status Journal::append(RecordKind kind, std::string_view body, std::uint64_t kept) {
  if (body.size() > largest_body)
    return fail(std::errc::file_too_large, "a journal record would become too large");
  const auto length = static_cast<std::uint32_t>(body.size());
  const auto number = static_cast<std::uint32_t>(kind);
  const std::uint64_t chain = link(chain_, number, length, sequence_ + 1, as_bytes(body));
  ByteWriter out;
  out.put(length);
  out.put(number);
  out.put(sequence_ + 1);
  out.put(chain);
  out.put_raw(body);
  out.pad_to(alignment);
  // A reserve that fails is no failure yet: what was held before may do.
  Status held = reserve(out.size() + reserve_step);
  if (!held.ok() && end_ + out.size() + kept > reserved_) return held;
  if (Status written = file_.write(end_, as_bytes(out.bytes())); !written.ok()) {
    (void)file_.truncate(end_);
    reserved_ = possible_ = 0;
    return written;
  }
  end_ += out.size();
  chain_ = chain;
  ++sequence_;
  return {};
}

Status Journal::append_mark(std::uint64_t covered_end) {
  return append(RecordKind::mark, mark_body(cube_, generation_, end_, covered_end));
}

}  // namespace accrete
