// File formats of frames and views behind one interface: header, elements, padding.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/shape.h"

namespace accrete {

// Values are part of the format at rest; never renumber.
enum class FormatId : std::uint8_t { fits = 1, npy = 2, raw = 3, txt = 4 };

// FITS: what the elements stand for when it is not their own value (FITS standard 4.0, 4.4.2.5).
// value = zero + scale × element, in the arithmetic of `physical` as astropy has it: float32 where
// the elements are integers of at most 16 bits or float32, else float64.
struct Scaling {
  DType physical = DType::f64;
  double scale = 1;
  double zero = 0;
  std::optional<std::int64_t> blank;  // the integer that stands for no value

  friend bool operator==(const Scaling&, const Scaling&) = default;
};

// What a frame's file says of itself: where its elements lie and what they are.
struct FrameLayout {
  FormatId format = FormatId::raw;
  Coding coding;                   // of the elements as the file has them
  std::optional<Scaling> scaling;  // nothing: they are the values
  Shape shape;                     // fastest axis first
  bool fortran_order = false;     // NPY: the file's order is the reverse of C order; `shape` is the
                                  // file's own element order, fastest first, all the same
  std::uint64_t data_offset = 0;  // bytes before the elements (all headers, earlier HDUs)
  std::uint64_t data_bytes = 0;   // elements × size
  std::uint64_t least_bytes = 0;  // a file this long is complete (FITS may lack final padding)
  std::uint64_t full_bytes = 0;   // with final padding; a longer file has a tail (other HDUs)
  std::uint64_t header_offset = 0;  // where the header of the image begins, which ends at the data
  std::uint64_t primary_bytes = 0;  // length of the primary header; 0: it is that of the image

  DType value_type() const { return scaling ? scaling->physical : coding.type; }
};

// The texts of a frame's file that describe its elements.
struct Headers {
  std::string image;
  std::string primary;  // of the primary HDU; empty where that is the image
};

// Which image of a multi-image file is the frame; formats without such a notion ignore it.
struct ImageChoice {
  // An HDU by number, 0 being the primary; -1: by name, or the first image when there is none.
  int hdu = -1;
  std::string name;  // EXTNAME, in upper case
  int version = 0;   // EXTVER; 0: any
};

// How the image of a file is packed, so that a layout is found only in what it unpacks to.
enum class Packing : std::uint8_t { gzip = 1, tiles = 2 };

// What a view shows, for making its header.
struct ViewFacts {
  DType type = DType::u8;
  Shape shape;                     // in view order, fastest first
  std::vector<std::string> cards;  // FITS cards to carry along, each of 80 characters or, with its
                                   // CONTINUE cards, more; no structural ones, in order
  std::string axis_letters;        // of the spanned axes in view order, "zx"
};

// The bytes of a view's file: header, then `elements` × bytes_per_element, then `trailer` bytes of
// `trailer_fill`.
struct FileFace {
  std::string header;
  std::uint64_t elements = 0;
  std::uint64_t bytes_per_element = 0;
  std::uint64_t trailer = 0;
  char trailer_fill = '\0';

  std::uint64_t data_bytes() const { return elements * bytes_per_element; }
  std::uint64_t total() const { return header.size() + data_bytes() + trailer; }
};

// One object a format, without state: all members are thread-safe.
class Format {
 public:
  virtual ~Format() = default;
  virtual FormatId id() const = 0;
  virtual std::string_view extension() const = 0;  // "fits"

  // ---- Reading frames ----
  // Looks at the first bytes of a file that is not necessarily complete yet. Never reads beyond
  // `head`; `at_end`: these are all the bytes there will be, so the answer is not need_more.
  // need_more: undecided, look again with more bytes; other answers are final, more bytes do not
  // change them. The layout does not promise that the file is as long as it says. EINVAL (or EFBIG
  // for extents that overflow) when it is this format but no valid frame, with the sentence for the
  // user. Hostile input is bounded: no allocation beyond O(head.size()). A header that needs more
  // than max_header bytes is EINVAL.
  struct Look {
    enum class Kind { need_more, not_mine, layout, packed } kind = Kind::not_mine;
    FrameLayout layout;
    Packing packing = Packing::gzip;  // packed: how,
    int hdu = 0;                      // and in which HDU
  };
  virtual Result<Look> look(std::span<const std::byte> head, bool at_end,
                            const ImageChoice& choice) const = 0;
  // The cards of an image's header worth carrying to its views: for FITS all but structural ones; a
  // card and the CONTINUE cards of its string are one element. Else none.
  virtual std::vector<std::string> cards(std::string_view header) const;
  // The card of a keyword in the header of the image, else in the primary one, with its CONTINUE
  // cards; nothing when there is none, or the format has no cards.
  virtual std::optional<std::string> find_card(const Headers& headers,
                                               std::string_view keyword) const;

  // True when the header tells checksums of the file.
  virtual bool says_sums(std::string_view header) const;
  // EINVAL when they are not those of the header and of data whose sum this is, padding included
  // (fits_checksum.h).
  virtual Status check_sums(std::string_view header, std::uint32_t data_sum) const;

  // ---- Writing views ----
  // False when the format cannot show this type or rank.
  virtual bool can_show(DType type, std::size_t rank) const = 0;
  virtual FileFace face(const ViewFacts& facts) const = 0;
  // True when elements are stored as binary in `coding(type)`; else `print` makes their bytes.
  virtual bool is_binary() const { return true; }
  virtual Coding coding(DType type) const = 0;
  // Writes n elements (native coding) as n × bytes_per_element bytes; binary formats recode.
  virtual void print(const std::byte* elements, std::size_t n, DType type, char* target) const;
  // The element that one element's bytes, as print() makes them, stand for; native coding. Looser
  // than print(): any number that fits there. EINVAL.
  virtual Result<Element> parse(std::string_view text, DType type) const;
  // True when a file of this format may grow at its end without changing what is before it
  // (the header does not depend on the slowest extent and there is no trailer).
  virtual bool can_extend() const = 0;
};

inline constexpr std::size_t max_header = std::size_t{16} << 20;

// FITS, NPY, raw and txt, in the order in which content is tried (raw and txt never match).
std::span<const Format* const> all_formats();
const Format& format(FormatId id);

// The file that a view of a frame's elements would be, all of them values of this type, in the
// format of its layout and with these cards; `layout` becomes that of the file.
FileFace make_canonical(FrameLayout& layout, DType type, std::vector<std::string> cards);
const Format* format_by_extension(std::string_view extension);

// Asks every format in turn; not_mine when all say so, which leaves that the file may be raw.
Result<Format::Look> try_formats(std::span<const std::byte> head, bool at_end,
                                 const ImageChoice& choice);
// As try_formats where raw is out of the question: content of no known format is EINVAL with a
// sentence that says what it is, so the answer is need_more or a layout.
Result<Format::Look> look_at(std::span<const std::byte> head, bool at_end,
                             const ImageChoice& choice);

}  // namespace accrete
