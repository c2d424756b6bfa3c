// The files of meta/. A byte that is odd takes a cube with a frame, else it is undefined; then come
// settings, each a byte for the property (its top bit: append) and a text that ends at a NUL.
// A text is refused and changes nothing, or it is what is shown from then on; what is shown is
// taken and changes nothing. In the end another frame may come; opened again, the cube shows the
// same.
#include <array>
#include <set>

#include "core/definition.h"
#include "tests/fuzz/store_files.h"

namespace accrete::fuzzing {
namespace {

constexpr std::array<std::byte, 6> elements = {std::byte{1}, std::byte{2}, std::byte{3},
                                               std::byte{4}, std::byte{5}, std::byte{6}};

std::string card(std::string text) {
  text.resize(80, ' ');
  return text;
}

// A file with world coordinates, which a cube's own follow or not.
std::string frame() {
  return file_of(FormatId::fits, DType::u8, {3, 2}, elements,
                 {card("CTYPE1  = 'RA---TAN'"), card("CRPIX1  = 1.5"), card("OBJECT  = 'M42'")});
}

struct World {
  Scratch scratch;
  std::filesystem::path path = scratch.path() / "store";
  CubeFiles undefined, defined;

  World() {
    { const OpenStore open = OpenStore::create(scratch.path() / "undefined"); }
    undefined = read_cube(scratch.path() / "undefined");
    {
      const OpenStore open = OpenStore::create(scratch.path() / "defined");
      ACCRETE_HOLDS(put(*open.cube, "a.fits", frame()).ok());
      ACCRETE_HOLDS(put(*open.cube, "b.fits", frame(), through(Side::prepend)).ok());
    }
    defined = read_cube(scratch.path() / "defined");
  }
};

std::string upper(std::string text) {
  for (char& c : text)
    if ('a' <= c && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return text;
}

std::string joined(const std::vector<std::string>& words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : std::string(between)) + word;
  return text;
}

// Whether the property shows what was set.
bool shows(std::string_view name, std::string_view shown, std::string_view text) {
  const std::vector<std::string> given = words(text), now = words(shown);
  if (name == "header") return true;
  if (name == "axes") return joined(given, "") == joined(now, "");
  if (name == "order") return upper(joined(given, " ")) == upper(joined(now, " "));
  if (name == "formats")
    return std::set(given.begin(), given.end()) == std::set(now.begin(), now.end());
  if (name == "hdu") return upper(joined(given, " ")) == upper(joined(now, " "));
  return given == now;
}

void check_setting(Cube& cube, std::string_view name, std::string_view text, bool append) {
  const auto before = properties_of(cube);
  const Status set = cube.set_property(name, text, append);
  if (!set.ok()) {
    ACCRETE_HOLDS(!set.error().sentence.empty());
    ACCRETE_HOLDS(properties_of(cube) == before);
    return;
  }
  ACCRETE_HOLDS(Cube::is_settable(name));
  const auto after = properties_of(cube);
  const std::string shown = *cube.property(name);
  ACCRETE_HOLDS(shows(name, shown, text));
  ACCRETE_HOLDS(cube.set_property(name, shown).ok());
  ACCRETE_HOLDS(properties_of(cube) == after);
}

void run(Input input) {
  static const World world;
  const bool defined = input.take<std::uint8_t>() % 2 == 1;
  write_store(world.path, defined ? world.defined : world.undefined);
  std::vector<std::pair<std::string, std::string>> last;
  {
    auto open = OpenStore::open(world.path);
    ACCRETE_HOLDS(open.ok());
    Cube& cube = *open->cube;
    for (int settings = 0; settings < 16 && !input.empty(); ++settings) {
      const unsigned choice = input.take<std::uint8_t>();
      const std::string_view text = input.take_until('\0');
      const auto names = Cube::property_names();
      const std::size_t number = (choice & 0x7f) % (names.size() + 1);
      const std::string_view name = number < names.size() ? names[number] : "none";
      check_setting(cube, name, text, (choice & 0x80) != 0);
    }
    (void)put(cube, "c.fits", frame());  // a cube may have been told to refuse it
    last = properties_of(cube);
  }
  const auto again = OpenStore::open(world.path);
  ACCRETE_HOLDS(again.ok() && !again->cube->read_only());
  ACCRETE_HOLDS(properties_of(*again->cube) == last);
}

}  // namespace
}  // namespace accrete::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  accrete::fuzzing::run({data, size});
  return 0;
}
