#include "core/draft.h"

namespace accrete {

void Draft::define(const Definition& definition) {
  delta_.definition = definition;
  const std::size_t rank = definition.defined ? definition.rank : 0;
  if (rank != axes_.size()) axes_ = PerAxis<Axis>(rank);
}

Status Draft::edit(std::size_t axis, AxisEdit::Kind kind, Run run, std::uint64_t position) {
  const AxisEdit edit{kind, static_cast<std::uint8_t>(axis), position, run};
  ACCRETE_TRY(axes_[axis], apply(axes_[axis], edit));
  delta_.edits.push_back(edit);
  return {};
}

Status Draft::arrange(std::size_t axis, std::vector<Axis::Piece> pieces) {
  ACCRETE_TRY(axes_[axis], axes_[axis].arrange(pieces));
  delta_.arrangements.push_back({static_cast<std::uint8_t>(axis), std::move(pieces)});
  return {};
}

std::optional<Box> Draft::box(std::uint64_t id) const {
  if (const auto at = boxes_.find(id); at != boxes_.end()) return at->second;
  const Box* box = base_.boxes.find(id);
  return box == nullptr ? std::nullopt : std::optional<Box>(*box);
}

Delta Draft::finish() && {
  for (const auto& [id, box] : boxes_) {
    if (box)
      delta_.boxes.push_back(*box);
    else
      delta_.removed_boxes.push_back(id);
  }
  return std::move(delta_);
}

}  // namespace accrete
