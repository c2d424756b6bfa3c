#include "fs/header_edits.h"

namespace accrete {

void HeaderEdits::put(const TextChanges& changes) {
  MutexLock lock(mutex_);
  now_.put(changes);
}

std::shared_ptr<const Shown> HeaderEdits::over(std::shared_ptr<const Shown> shown) const {
  MutexLock lock(mutex_);
  if (now_.empty()) return shown;
  auto edited = std::make_shared<Shown>(*shown);
  edited->content.changes.put(now_);
  return edited;
}

Status HeaderEdits::settle(
    const std::function<Status(const TextChanges&, const TextChanges&)>& take) {
  MutexLock lock(mutex_);
  if (now_ == taken_) return {};
  const Status status = take(taken_, now_);
  if (status.ok())
    taken_ = now_;
  else
    now_ = taken_;
  return status;
}

bool HeaderEdits::has_taken() const {
  MutexLock lock(mutex_);
  return !taken_.empty();
}

}  // namespace accrete
