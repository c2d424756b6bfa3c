// Keeps elements at rest still while somebody copies their bytes in units of his own.
//
// An element is loaded and stored by one access each, so that nobody sees a part of it old and a
// part new. But the kernel, which copies a reply straight from the mapping into the memory of who
// reads, goes by its own units: from any byte on, to wherever a page of that memory ends, and in
// any order. So it copies only while no element changes.
//
// A holder is counted in, then looks whether a change has begun; a change says that it has begun,
// then waits until none is counted. All is one atomic word, so one of them sees the other: a change
// never has a holder beside it. From its beginning on nobody else gets hold, so it waits for those
// there are, each for one copy, and not for all who come later.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace accrete {

class Stillness {
 public:
  struct LetGo {
    std::shared_ptr<Stillness> of;
    void operator()(Stillness*) const { of->let_go(); }
  };
  // While it lives, no element changes in place. For as long as one copy takes: pokes wait for it.
  // May outlive the elements.
  using Hold = std::unique_ptr<Stillness, LetGo>;

  // While it lives, elements may change in place: begins when the last hold has ended. One at a
  // time; not by who holds.
  class Change {
   public:
    explicit Change(Stillness& of) : of_(of) {
      std::uint32_t state = of_.state_.fetch_or(changing) | changing;
      for (; state != changing; state = of_.state_) of_.state_.wait(state);
    }
    ~Change() { of_.state_.fetch_and(~changing); }
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    Stillness& of_;
  };

  // Null while elements change: they are to be copied one by one then. Never waits. Thread-safe.
  static Hold try_hold(const std::shared_ptr<Stillness>& of) {
    const bool is_still = (of->state_.fetch_add(1) & changing) == 0;
    Hold hold(of.get(), LetGo{of});
    if (!is_still) hold.reset();
    return hold;
  }

 private:
  static constexpr std::uint32_t changing = std::uint32_t{1} << 31;

  void let_go() {
    if (state_.fetch_sub(1) == (changing | 1)) state_.notify_all();
  }

  std::atomic<std::uint32_t> state_ = 0;  // whether a change has begun, and the number of holds
};

}  // namespace accrete
