// Operations on a store with one cube, "c", and what the cube was after each.
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/store.h"
#include "tests/power_loss/seen.h"

namespace accrete::power_loss {

// Not thread-safe. The same seed makes the same operations.
class Workload {
 public:
  // What is told of each operation when it has returned, and of each sync that is complete.
  using Teller = std::function<void(const std::string&)>;

  // Opens the store, which is made where there is none; that is state 0. `mark` is told "acked N"
  // for each state, "synced N", and "names N" for each element of names().
  Workload(const std::string& store, std::uint64_t seed, Teller mark);

  static const std::vector<std::string>& operations();
  // Does one of these; false: the cube is in no state for it, and nothing happened. Throws when it
  // fails otherwise.
  bool apply(const std::string& operation);
  void apply_any();
  // Has the kernel write some of the cube's files, in any order.
  void stir();
  void mark(const std::string& text) { mark_(text); }
  void close();

  const std::vector<State>& states() const { return states_; }
  // Cubes in the store besides, each list as it was from some operation on.
  const std::vector<std::vector<std::string>>& names() const { return names_; }

 private:
  bool attempt(const std::string& operation);
  void open();
  void told(const std::string& operation, std::optional<View> replaced = std::nullopt);
  void told_names();
  void sync();
  void add(Side side, bool ragged, bool known_name);
  bool poke();
  bool replace();
  bool with_frame(bool removed, const std::function<Status(FrameId, const std::string&)>& body);
  void set_property();
  void checkpoint();
  void change_other_cube();
  std::string any(std::initializer_list<const char*> words);

  const std::string path_;
  std::mt19937_64 random_;
  const Teller mark_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Cube> cube_;
  std::vector<State> states_;
  std::vector<std::vector<std::string>> names_;
  int next_ = 0;  // number for names and values
};

// Has the kernel write some of a directory's files, in any order, and the filesystem what it has of
// names, sizes and extents.
void write_out_some(const std::string& directory, std::mt19937_64& random);

// A frame comes in, as one of the copied files does.
Status add_frame(Cube& cube, const std::string& name, std::mt19937_64& random);

}  // namespace accrete::power_loss
