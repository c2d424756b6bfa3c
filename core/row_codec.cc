#include "core/row_codec.h"

#include <array>
#include <bit>

namespace accrete {

namespace {

Error damaged(const char* what) {
  return fail(std::errc::invalid_argument, std::string("damaged ") + what);
}

void put(ByteWriter& out, const HeapRef& ref) {
  out.put(ref.offset);
  out.put(ref.length);
  out.put(ref.sum);
}

HeapRef get_ref(ByteReader& in) {
  HeapRef ref;
  ref.offset = in.get<std::uint64_t>();
  ref.length = in.get<std::uint64_t>();
  ref.sum = in.get<std::uint64_t>();
  return ref;
}

template <class T>
void put(ByteWriter& out, const PerAxis<T>& values) {
  for (std::size_t i = 0; i < max_rank; ++i) out.put(i < values.size() ? values[i] : T{});
}

template <class T>
PerAxis<T> get_axes(ByteReader& in, std::size_t rank) {
  PerAxis<T> values;
  for (std::size_t i = 0; i < max_rank; ++i) {
    const T value = in.get<T>();
    if (i < rank) values.push_back(value);
  }
  return values;
}

std::uint8_t coding_flags(const Coding& coding) {
  return static_cast<std::uint8_t>((coding.big_endian ? 1 : 0) | (coding.sign_flipped ? 2 : 0));
}

Coding make_coding(DType type, std::uint8_t flags) {
  return Coding{type, (flags & 1) != 0, (flags & 2) != 0};
}

// The texts of a definition, in order.
template <class D>
auto texts_of(D& d) {
  auto& set = d.settings;
  return std::array{&d.letters, &d.formats,   &set.dtype, &set.letters, &set.pad,
                    &set.grow,  &set.formats, &set.order, &set.header,  &set.hdu};
}

bool positive(const Shape& shape) {
  for (const std::uint64_t extent : shape)
    if (extent == 0) return false;
  return true;
}

}  // namespace

void encode(ByteWriter& out, const FrameRow& row) {
  const FrameLayout& layout = row.layout;
  out.put(row.id);
  out.put(static_cast<std::uint8_t>(row.state));
  out.put(static_cast<std::uint8_t>(layout.format));
  out.put(static_cast<std::uint8_t>(layout.coding.type));
  out.put(static_cast<std::uint8_t>(coding_flags(layout.coding) | (layout.fortran_order ? 4 : 0) |
                                    (row.packed ? 8 : 0)));
  out.put(row.grow_axis);
  out.put(static_cast<std::uint8_t>(row.extent.size()));
  out.put(static_cast<std::uint8_t>(layout.shape.size()));
  out.put(static_cast<std::uint8_t>(static_cast<unsigned>(row.side) | (row.names_axis ? 4u : 0u)));
  put(out, row.name);
  out.put(row.name_hash);
  put(out, row.prefix);
  put(out, row.suffix);
  put(out, row.runs);
  put(out, row.sums);
  out.put(row.first_sum);
  out.put(row.digest[0]);
  out.put(row.digest[1]);
  out.put(layout.data_offset);
  out.put(layout.data_bytes);
  out.put(layout.least_bytes);
  out.put(layout.full_bytes);
  out.put(row.mtime_ns);
  out.put(row.arrival_ns);
  out.put(row.mode);
  out.put(row.uid);
  out.put(row.gid);
  out.put(std::uint32_t{0});
  out.put(row.at);
  put(out, row.first);
  put(out, row.extent);
  put(out, layout.shape);
  put(out, row.original);
  const Scaling scaling = layout.scaling.value_or(Scaling{});
  out.put(std::bit_cast<std::uint64_t>(scaling.scale));
  out.put(std::bit_cast<std::uint64_t>(scaling.zero));
  out.put(scaling.blank.value_or(0));
  out.put(layout.scaling ? static_cast<std::uint8_t>(scaling.physical) : std::uint8_t{0});
  out.put(static_cast<std::uint8_t>(scaling.blank ? 1 : 0));
  out.put(std::uint16_t{0});
  out.put(std::uint32_t{0});
  out.put(layout.header_offset);
  out.put(layout.primary_bytes);
  put(out, row.cards);
}

Result<FrameRow> decode_frame(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  FrameRow row;
  FrameLayout& layout = row.layout;
  row.id = in.get<std::uint64_t>();
  const auto state = in.get<std::uint8_t>();
  const auto format = in.get<std::uint8_t>();
  const auto type = dtype_from_number(in.get<std::uint8_t>());
  const auto flags = in.get<std::uint8_t>();
  row.grow_axis = in.get<std::uint8_t>();
  const auto rank = in.get<std::uint8_t>();
  const auto file_rank = in.get<std::uint8_t>();
  const auto door = in.get<std::uint8_t>();
  row.name = get_ref(in);
  row.name_hash = in.get<std::uint64_t>();
  row.prefix = get_ref(in);
  row.suffix = get_ref(in);
  row.runs = get_ref(in);
  row.sums = get_ref(in);
  row.first_sum = in.get<std::uint64_t>();
  row.digest = {in.get<std::uint64_t>(), in.get<std::uint64_t>()};
  layout.data_offset = in.get<std::uint64_t>();
  layout.data_bytes = in.get<std::uint64_t>();
  layout.least_bytes = in.get<std::uint64_t>();
  layout.full_bytes = in.get<std::uint64_t>();
  row.mtime_ns = in.get<std::int64_t>();
  row.arrival_ns = in.get<std::int64_t>();
  row.mode = in.get<std::uint32_t>();
  row.uid = in.get<std::uint32_t>();
  row.gid = in.get<std::uint32_t>();
  in.get<std::uint32_t>();
  row.at = in.get<std::uint64_t>();
  if (!in.good() || !type || rank == 0 || rank > max_rank || file_rank == 0 ||
      file_rank > max_rank || row.grow_axis >= rank || state < 1 || state > 3 || format < 1 ||
      format > 3 || (door & 3) > 2 || door > 7)
    return damaged("frame row");
  row.side = static_cast<Side>(door & 3);
  row.names_axis = (door & 4) != 0;
  row.state = static_cast<FrameState>(state);
  layout.format = static_cast<FormatId>(format);
  layout.coding = make_coding(*type, flags);
  layout.fortran_order = (flags & 4) != 0;
  row.packed = (flags & 8) != 0;
  row.first = get_axes<std::int64_t>(in, rank);
  row.extent = get_axes<std::uint64_t>(in, rank);
  layout.shape = get_axes<std::uint64_t>(in, file_rank);
  row.original = get_ref(in);
  Scaling scaling;
  scaling.scale = std::bit_cast<double>(in.get<std::uint64_t>());
  scaling.zero = std::bit_cast<double>(in.get<std::uint64_t>());
  const auto blank = in.get<std::int64_t>();
  const auto physical = in.get<std::uint8_t>();
  const auto has_blank = in.get<std::uint8_t>();
  in.get<std::uint16_t>();
  in.get<std::uint32_t>();
  layout.header_offset = in.get<std::uint64_t>();
  layout.primary_bytes = in.get<std::uint64_t>();
  row.cards = get_ref(in);
  if (physical != 0) {
    const auto value_type = dtype_from_number(physical);
    if (!value_type || !is_float(*value_type)) return damaged("frame row");
    scaling.physical = *value_type;
    if (has_blank != 0) scaling.blank = blank;
    layout.scaling = scaling;
  }
  if (layout.header_offset > layout.data_offset || layout.primary_bytes > layout.header_offset)
    return damaged("frame row");
  if (!in.good() || !positive(row.extent) || !positive(layout.shape)) return damaged("frame row");
  return row;
}

void encode(ByteWriter& out, const Box& box) {
  out.put(box.id);
  out.put(static_cast<std::uint32_t>(box.rank()));
  out.put(static_cast<std::uint32_t>(box.layer_axis));
  put(out, box.origin);
  put(out, box.extent);
  put(out, box.brick);
  out.put(box.slot_layers);
  out.put(box.written);
  out.put(box.kept);
  out.put(box.spent);
  out.put(box.file_offset);
  out.put(box.layer_pitch);
  out.put(box.poked);
}

Result<Box> decode_box(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  Box box;
  box.id = in.get<std::uint64_t>();
  const auto rank = in.get<std::uint32_t>();
  box.layer_axis = in.get<std::uint32_t>();
  if (rank == 0 || rank > max_rank || box.layer_axis >= rank) return damaged("box row");
  box.origin = get_axes<std::int64_t>(in, rank);
  box.extent = get_axes<std::uint64_t>(in, rank);
  box.brick = get_axes<std::uint64_t>(in, rank);
  box.slot_layers = in.get<std::uint64_t>();
  box.written = in.get<std::uint64_t>();
  box.kept = in.get<std::uint64_t>();
  box.spent = in.get<std::uint64_t>();
  box.file_offset = in.get<std::uint64_t>();
  box.layer_pitch = in.get<std::uint64_t>();
  box.poked = in.get<std::uint64_t>();
  if (!in.good() || !positive(box.extent) || !positive(box.brick) || box.slot_layers == 0 ||
      box.extent[box.layer_axis] % box.slot_layers != 0 || box.slots() > 64)
    return damaged("box row");
  return box;
}

void encode(ByteWriter& out, const Definition& d) {
  const Settings& set = d.settings;
  out.put(static_cast<std::uint8_t>((d.defined ? 1 : 0) | (set.drops_residue ? 2 : 0) |
                                    (set.sync_each_close ? 4 : 0)));
  out.put(static_cast<std::uint8_t>(d.coding.type));
  out.put(coding_flags(d.coding));
  out.put(static_cast<std::uint8_t>(d.rank));
  out.put(static_cast<std::uint8_t>(set.ragged));
  out.put(static_cast<std::uint8_t>(set.same_name));
  out.put(static_cast<std::uint8_t>(set.rounding));
  out.put(static_cast<std::uint8_t>(set.header_first.size()));
  out.put_raw(as_text(d.pad.bytes));
  out.put(d.poked_ns);
  for (const std::string* text : texts_of(d)) out.put_text(*text);
  for (const std::int64_t at : set.header_first) out.put(at);
  for (const std::int64_t at : set.header_last) out.put(at);
  for (const std::uint64_t extent : set.header_extent) out.put(extent);
}

Result<Definition> decode_definition(ByteReader& in) {
  Definition d;
  Settings& set = d.settings;
  const auto flags = in.get<std::uint8_t>();
  const auto type = dtype_from_number(in.get<std::uint8_t>());
  const auto coding = in.get<std::uint8_t>();
  d.rank = in.get<std::uint8_t>();
  const auto ragged = in.get<std::uint8_t>();
  const auto same_name = in.get<std::uint8_t>();
  const auto rounding = in.get<std::uint8_t>();
  const std::size_t header_axes = in.get<std::uint8_t>();
  const auto pad = in.get_raw(d.pad.bytes.size());
  d.poked_ns = in.get<std::int64_t>();
  if (!in.good() || !type || d.rank > max_rank || ragged > 2 || same_name > 3 || rounding > 1 ||
      header_axes > max_rank)
    return damaged("definition");
  std::copy(pad.begin(), pad.end(), d.pad.bytes.begin());
  d.defined = (flags & 1) != 0;
  set.drops_residue = (flags & 2) != 0;
  set.sync_each_close = (flags & 4) != 0;
  set.rounding = static_cast<Rounding>(rounding);
  set.ragged = static_cast<Ragged>(ragged);
  set.same_name = static_cast<SameName>(same_name);
  d.coding = make_coding(*type, coding);
  for (std::string* text : texts_of(d)) *text = in.get_text();
  for (Coords* coordinates : {&set.header_first, &set.header_last})
    for (std::size_t i = 0; i < header_axes; ++i) coordinates->push_back(in.get<std::int64_t>());
  for (std::size_t i = 0; i < header_axes; ++i)
    set.header_extent.push_back(in.get<std::uint64_t>());
  if (!in.good() || (d.defined && d.rank == 0) || d.letters.size() != d.rank ||
      set.letters.size() > max_rank || set.grow.size() > 1)
    return damaged("definition");
  return d;
}

void encode(ByteWriter& out, const Delta& delta) {
  out.put(static_cast<std::uint8_t>(delta.definition ? 1 : 0));
  if (delta.definition) encode(out, *delta.definition);
  out.put(static_cast<std::uint32_t>(delta.edits.size()));
  for (const AxisEdit& edit : delta.edits) {
    out.put(static_cast<std::uint8_t>(edit.kind));
    out.put(edit.axis);
    out.put(edit.at);
    out.put(edit.run.first);
    out.put(edit.run.length);
  }
  out.put(static_cast<std::uint32_t>(delta.arrangements.size()));
  for (const Delta::Arrangement& arrangement : delta.arrangements) {
    out.put(arrangement.axis);
    out.put(static_cast<std::uint32_t>(arrangement.pieces.size()));
    for (const Axis::Piece& piece : arrangement.pieces) {
      out.put(static_cast<std::uint8_t>(piece.dormant));
      out.put(piece.run.first);
      out.put(piece.run.length);
    }
  }
  out.put(static_cast<std::uint32_t>(delta.boxes.size()));
  for (const Box& box : delta.boxes) encode(out, box);
  out.put(static_cast<std::uint32_t>(delta.removed_boxes.size()));
  for (const std::uint64_t id : delta.removed_boxes) out.put(id);
  out.put(static_cast<std::uint32_t>(delta.patches.size()));
  for (const Box& patch : delta.patches) encode(out, patch);
  out.put(static_cast<std::uint32_t>(delta.removed_patches.size()));
  for (const std::uint64_t id : delta.removed_patches) out.put(id);
  out.put(static_cast<std::uint32_t>(delta.frames.size()));
  for (const FrameRow& row : delta.frames) encode(out, row);
  out.put(static_cast<std::uint8_t>(delta.redo ? 1 : 0));
  if (!delta.redo) return;
  const Redo& redo = *delta.redo;
  out.put(static_cast<std::uint8_t>(redo.order.size()));
  for (const std::uint8_t axis : redo.order) out.put(axis);
  out.put(static_cast<std::uint8_t>(redo.runs.size()));
  for (const std::vector<Run>& runs : redo.runs) {
    out.put(static_cast<std::uint32_t>(runs.size()));
    for (const Run& run : runs) {
      out.put(run.first);
      out.put(run.length);
    }
  }
  put(out, redo.elements);
}

namespace {

Result<Redo> decode_redo(ByteReader& in) {
  Redo redo;
  const std::size_t dimensions = in.get<std::uint8_t>();
  if (dimensions == 0 || dimensions > max_rank) return damaged("journal record");
  for (std::size_t d = 0; d < dimensions; ++d) redo.order.push_back(in.get<std::uint8_t>());
  const std::size_t rank = in.get<std::uint8_t>();
  if (rank < dimensions || rank > max_rank) return damaged("journal record");
  for (std::size_t axis = 0; axis < rank; ++axis) {
    std::vector<Run> runs;
    for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
      const auto first = in.get<std::int64_t>();
      runs.push_back({first, in.get<std::uint64_t>()});
    }
    redo.runs.push_back(std::move(runs));
  }
  redo.elements = get_ref(in);
  return redo;
}

}  // namespace

Result<Delta> decode_delta(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  Delta delta;
  if (in.get<std::uint8_t>() != 0) {
    ACCRETE_TRY(delta.definition, decode_definition(in));
  }
  // Counts need no bound of their own: each turn consumes bytes or stops.
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
    AxisEdit edit;
    const auto kind = in.get<std::uint8_t>();
    if (kind < 1 || kind > 5) return damaged("journal record");
    edit.kind = static_cast<AxisEdit::Kind>(kind);
    edit.axis = in.get<std::uint8_t>();
    edit.at = in.get<std::uint64_t>();
    edit.run.first = in.get<std::int64_t>();
    edit.run.length = in.get<std::uint64_t>();
    delta.edits.push_back(edit);
  }
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
    Delta::Arrangement arrangement;
    arrangement.axis = in.get<std::uint8_t>();
    for (auto m = in.get<std::uint32_t>(); m > 0 && in.good(); --m) {
      Axis::Piece piece;
      piece.dormant = in.get<std::uint8_t>() != 0;
      piece.run.first = in.get<std::int64_t>();
      piece.run.length = in.get<std::uint64_t>();
      arrangement.pieces.push_back(piece);
    }
    delta.arrangements.push_back(std::move(arrangement));
  }
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
    ACCRETE_TRY(Box box, decode_box(in.get_raw(box_row_bytes)));
    delta.boxes.push_back(box);
  }
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n)
    delta.removed_boxes.push_back(in.get<std::uint64_t>());
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
    ACCRETE_TRY(Box patch, decode_box(in.get_raw(box_row_bytes)));
    if (patch.slots() != 1 || patch.written != 1) return damaged("journal record");
    delta.patches.push_back(patch);
  }
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n)
    delta.removed_patches.push_back(in.get<std::uint64_t>());
  for (auto n = in.get<std::uint32_t>(); n > 0 && in.good(); --n) {
    ACCRETE_TRY(FrameRow row, decode_frame(in.get_raw(frame_row_bytes)));
    delta.frames.push_back(row);
  }
  if (in.get<std::uint8_t>() != 0) {
    ACCRETE_TRY(delta.redo, decode_redo(in));
  }
  if (!in.good() || in.remaining() != 0) return damaged("journal record");
  return delta;
}

}  // namespace accrete
