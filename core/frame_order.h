// The order of frames along the axis that grows, where meta/order asks for one: by name, or by the
// values of FITS keywords. Pure.
//
// While an order is set, the frames that grew that axis stand in order of their keys, removed ones
// too, those with equal keys in order of arrival. So a place is found by binary search, and what
// comes back from removal is in order. Indexes without a key, which frames along other axes brought
// or frames that are gone left to them, are passed over.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/snapshot.h"

namespace accrete {

// A string whose bytes compare as the frames do. `order`: as in Settings, not empty. Names compare
// with their numbers by value ("f9" before "f10"); keyword values as numbers where they are numbers
// or logical values, else as text (so ISO dates by time), numbers before texts.
// EINVAL when a keyword is in neither the image's header nor the primary one, or has no value.
Result<std::string> sort_key(std::string_view order, std::string_view name, const Headers& headers,
                             FormatId format);

// A keyword's value as text, a string without quotes; empty when there is none.
std::string keyword_text(const Headers& headers, FormatId format, std::string_view keyword);

// The position on the axis behind all frames whose key is not greater. `key_at`: the key of the
// frame that brought a coordinate; nothing when it has none.
// O(log n) calls, and one for each coordinate without a key that lies in the way.
std::uint64_t sorted_position(
    const Axis& axis, const std::string& key,
    const std::function<std::optional<std::string>(std::int64_t)>& key_at);

// The axis' pieces with these runs first, in this order, and the rest as it is.
// REQUIRES: the axis has the coordinates of all runs, which are disjoint.
std::vector<Axis::Piece> arranged(const Axis& axis, const std::vector<Run>& runs);

}  // namespace accrete
