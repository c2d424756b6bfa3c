#include "core/wcs.h"

#include <gtest/gtest.h>

#include <random>

#include "core/fits_card.h"

namespace accrete {
namespace {

using Cards = std::vector<std::string>;

// "CRPIX1 = 5 / comment" as a card.
std::string card(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) {
    std::string result(text);
    result.resize(card_length, ' ');
    return result;
  }
  std::string result(text.substr(0, equals));
  result.resize(8, ' ');
  result += text.substr(equals);
  result.resize(card_length, ' ');
  return result;
}

Cards cards(std::initializer_list<std::string_view> texts) {
  Cards result;
  for (const std::string_view text : texts) result.push_back(card(text));
  return result;
}

// Cards as "KEYWORD = value / comment" with single spaces, whatever their columns.
Cards brief(const Cards& cards) {
  Cards result;
  for (const std::string& c : cards) {
    EXPECT_EQ(c.size() % card_length, 0u) << c;
    const auto value = value_of(std::string_view(c).substr(0, card_length));
    std::string text(keyword_of(c));
    if (value) text += "= " + std::string(*value);
    const std::size_t slash = c.find(" / ");
    if (slash != std::string::npos)
      text += c.substr(slash, c.find_last_not_of(' ', card_length - 1) + 1 - slash);
    result.push_back(text);
  }
  return result;
}

PixelMap axes_of(std::initializer_list<PixelMap::Axis> axes,
                 std::vector<PixelMap::Fixed> fixed = {}, std::vector<std::size_t> broken = {}) {
  PixelMap map;
  map.axes = PerAxis<PixelMap::Axis>(axes);
  map.fixed = std::move(fixed);
  map.broken = std::move(broken);
  return map;
}

constexpr std::optional<std::size_t> none;

const Cards sky = cards({"CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'", "CRPIX1  = 5.5 / x",
                         "CRPIX2  = 6.5 / y", "CRVAL1  = 10.0", "CRVAL2  = 20.0", "CDELT1  = -0.5",
                         "CDELT2  = 0.25", "RADESYS = 'ICRS'"});

Cards with(Cards cards, const Cards& more) {
  cards.insert(cards.end(), more.begin(), more.end());
  return cards;
}

const Cards cube = with(sky, cards({"CTYPE3  = 'FREQ'", "CRPIX3  = 1.0", "CRVAL3  = 1.4E9",
                                    "CDELT3  = 1.0E6", "RESTFRQ = 1.42E9", "SPECSYS = 'LSRK'"}));

TEST(Wcs, keywords_are_of_their_alternates) {
  for (const char* keyword :
       {"WCSAXES",  "WCSNAME",  "CRPIX1",  "CRPIX99",  "CTYPE2",   "CUNIT3",   "CNAME1",
        "CRDER1",   "CSYER1",   "CROTA2",  "PC1_2",    "CD12_11",  "PV1_0",    "PS3_99",
        "LONPOLE",  "LATPOLE",  "RADESYS", "RADECSYS", "EQUINOX",  "EPOCH",    "SPECSYS",
        "SSYSOBS",  "SSYSSRC",  "RESTFRQ", "RESTFREQ", "RESTWAV",  "VELOSYS",  "ZSOURCE",
        "VELANGL",  "VELREF",   "ALTRPIX", "ALTRVAL",  "A_ORDER",  "B_DMAX",   "A_2_0",
        "BP_1_1",   "CPDIS1",   "CQDIS2",  "DP1",      "DQ2",      "D2IMDIS1", "D2IMEXT",
        "PC001002", "CD001001", "WCSDIM",  "WAT0_001", "WAT2_012", "WAXMAP01", "CZPHS1",
        "CPERI1"}) {
    EXPECT_EQ(alternate_of_keyword(keyword), ' ') << keyword;
    EXPECT_TRUE(is_wcs_keyword(keyword)) << keyword;
  }
  for (const char* keyword : {"WCSAXESA", "CRPIX12A", "CD1_1A", "PV12_12A", "RESTFRQA", "CROTA2A",
                              "CPDIS1A", "DP1A", "EQUINOXA"})
    EXPECT_EQ(alternate_of_keyword(keyword), 'A') << keyword;
  EXPECT_EQ(alternate_of(card("CRVAL1Z = 1.0")), 'Z');
  for (const char* keyword :
       {"",          "NAXIS",    "NAXIS1",  "CRPIX",    "CRPIX0",   "CRPIX01", "CRPIX100",
        "CRPIX1AB",  "CRPIX1a",  "CDELT",   "CD1",      "CD1_",     "CD1_0",   "CD0_1",
        "CD01_1",    "PCOUNT",   "PV1_100", "A_",       "A_2",      "A_2_",    "A_2_0A",
        "AP_ORDERS", "WCSAXES1", "MJD-OBS", "DATE-OBS", "OBSGEO-X", "TIMESYS", "MJDREF",
        "LTV1",      "LTM1_1",   "WAT1",    "WAT1_1",   "DP",       "EPOCHA",  "EQUINOX1",
        "CD00100",   "COMMENT"})
    EXPECT_FALSE(is_wcs_keyword(keyword)) << keyword;
  EXPECT_FALSE(alternate_of("").has_value());
  EXPECT_FALSE(alternate_of("CRPIX1").has_value());
}

TEST(Wcs, alternates_are_listed_in_order_of_their_letters) {
  EXPECT_EQ(alternates_in({}), "");
  EXPECT_EQ(alternates_in(cards({"OBJECT  = 'M 31'", "CRPIX1Z = 1", "CRPIX1B = 1"})), "BZ");
  EXPECT_EQ(alternates_in(cards({"CRPIX1A = 1", "A_ORDER = 2"})), " A");
}

TEST(Wcs, the_identity_keeps_all_cards_word_for_word) {
  const PixelMap identity = axes_of({{0, 0}, {1, 0}, {2, 0}});
  EXPECT_TRUE(identity.is_identity());
  EXPECT_FALSE(axes_of({{0, 0}, {1, 1}}).is_identity());
  EXPECT_FALSE(axes_of({{1, 0}, {0, 0}}).is_identity());
  EXPECT_FALSE(axes_of({{0, 0}, {none, 0}}).is_identity());
  EXPECT_FALSE(axes_of({{0, 0}}, {{1, 0}}).is_identity());
  EXPECT_FALSE(axes_of({{0, 0}}, {}, {0}).is_identity());
  const Cards all = with(cube, cards({"CRPIX2  = 'twice'", "CD001002= 3", "CRPIX1A = what",
                                      "PC1_1   = 1.0", "CD1_1   = 1.0", "HISTORY a"}));
  EXPECT_EQ(map_wcs(all, identity), all);
}

TEST(Wcs, a_cut_moves_the_reference_pixel_and_nothing_else) {
  Cards want = sky;
  want[2] = make_card("CRPIX1", "-94.5", "x");
  want[3] = make_card("CRPIX2", "36.5", "y");
  EXPECT_EQ(map_wcs(sky, axes_of({{0, 100}, {1, -30}})), want);
}

TEST(Wcs, reference_pixels_are_written_with_a_point_and_read_as_what_they_are) {
  const auto moved = [](std::string_view crpix, std::int64_t begin) {
    const Cards mapped = map_wcs(cards({"CRPIX1  = " + std::string(crpix)}), axes_of({{0, begin}}));
    return mapped.empty() ? "" : std::string(value_of(mapped.front()).value_or(""));
  };
  EXPECT_EQ(moved("512", 12), "500.0");
  EXPECT_EQ(moved("+1.5D+2", 50), "100.0");
  EXPECT_EQ(moved("1.5d2", 50), "100.0");
  EXPECT_EQ(moved("0.1", 1), "-0.9");
  EXPECT_EQ(moved("1e30", 1), "1.0E+30");
  EXPECT_EQ(moved("1.25E30", 1), "1.25E+30");
  EXPECT_EQ(moved("7", 7), "0.0");
  EXPECT_EQ(moved("1.", INT64_MIN), "9223372036854775808.0");
  EXPECT_EQ(moved("1.5D+2", 0), "1.5D+2");  // not touched
  for (const char* bad :
       {"", "'5'", "five", "nan", "inf", "1e999", "0x10", "1 2", "T", "1.5E", "--1"})
    EXPECT_EQ(moved(bad, 1), "") << bad;
}

TEST(Wcs, a_missing_reference_pixel_is_0_and_written_when_it_moves) {
  const Cards source = cards({"CTYPE1A = 'X'", "CRVAL1A = 3.0"});
  EXPECT_EQ(brief(map_wcs(source, axes_of({{0, 4}}))),
            (Cards{"CTYPE1A= 'X'", "CRVAL1A= 3.0", "CRPIX1A= -4.0"}));
  EXPECT_EQ(map_wcs(source, axes_of({{0, 0}, {none, 0}})), source);
}

TEST(Wcs, a_transpose_renumbers_and_keeps_comments_and_the_rest) {
  const Cards source =
      cards({"OBJECT  = 'M 31'", "WCSAXES = 2 / both", "CTYPE1  = 'RA---SIN'",
             "CTYPE2  = 'DEC--SIN' / latitude", "CUNIT1  = 'deg'", "COMMENT between",
             "CNAME2  = 'declination'", "CD1_2   = 0.5 / turned", "CD2_1   = -0.5", "PV2_1   = 0.1",
             "CRDER1  = 0.2", "CSYER2  = 0.3", "LONPOLE = 170.0", "MJD-OBS = 6.0E4"});
  EXPECT_EQ(map_wcs(source, axes_of({{1, 0}, {0, 0}})),
            cards({"OBJECT  = 'M 31'", "WCSAXES = 2 / both", "CTYPE2  = 'RA---SIN'",
                   "CTYPE1  = 'DEC--SIN' / latitude", "CUNIT2  = 'deg'", "CNAME1  = 'declination'",
                   "CD2_1   = 0.5 / turned", "CD1_2   = -0.5", "PV1_1   = 0.1", "CRDER2  = 0.2",
                   "CSYER1  = 0.3", "LONPOLE = 170.0", "COMMENT between", "MJD-OBS = 6.0E4"}));
}

TEST(Wcs, a_continued_string_moves_with_its_card) {
  Cards source = cards({"CTYPE1  = 'X'", "CNAME2  = 'a long &'"});
  source[1] += card("CONTINUE  'name'");
  Cards want = source;
  want[0].replace(0, 8, "CTYPE2  ");
  want[1].replace(0, 8, "CNAME1  ");
  EXPECT_EQ(map_wcs(source, axes_of({{1, 0}, {0, 0}})), want);
}

TEST(Wcs, a_plane_loses_the_axis_on_which_nothing_depends) {
  EXPECT_EQ(map_wcs(cube, axes_of({{0, 0}, {1, 0}}, {{2, 17}})), sky);
}

TEST(Wcs, a_plane_across_the_sky_keeps_the_fixed_celestial_axis_behind_its_own) {
  EXPECT_EQ(brief(map_wcs(cube, axes_of({{0, 0}, {2, 2}}, {{1, 10}}))),
            (Cards{"WCSAXES= 3 / number of world coordinate axes", "CTYPE1= 'RA---TAN'",
                   "CTYPE3= 'DEC--TAN'", "CRPIX1= 5.5 / x", "CRPIX3= -3.5 / y", "CRVAL1= 10.0",
                   "CRVAL3= 20.0", "CDELT1= -0.5", "CDELT3= 0.25", "RADESYS= 'ICRS'",
                   "CTYPE2= 'FREQ'", "CRPIX2= -1.0", "CRVAL2= 1.4E9", "CDELT2= 1.0E6",
                   "RESTFRQ= 1.42E9", "SPECSYS= 'LSRK'"}));
}

TEST(Wcs, a_spectrum_loses_the_sky_and_what_belongs_to_it) {
  EXPECT_EQ(brief(map_wcs(cube, axes_of({{2, 0}}, {{0, 3}, {1, 4}}))),
            (Cards{"CTYPE1= 'FREQ'", "CRPIX1= 1.0", "CRVAL1= 1.4E9", "CDELT1= 1.0E6",
                   "RESTFRQ= 1.42E9", "SPECSYS= 'LSRK'"}));
}

TEST(Wcs, matrix_elements_couple_axes_and_zeros_do_not) {
  const Cards source = cards({"CRVAL1  = 1.0", "CRVAL2  = 2.0", "CRVAL3  = 3.0", "PC1_1   = 1.0",
                              "PC1_3   = 0.5", "PC1_2   = 0.0"});
  EXPECT_EQ(brief(map_wcs(source, axes_of({{2, 0}}, {{0, 1}, {1, 1}}))),
            (Cards{"WCSAXES= 2 / number of world coordinate axes", "CRVAL2= 1.0", "CRVAL1= 3.0",
                   "PC2_2= 1.0", "PC2_1= 0.5", "CRPIX2= -1.0"}));
  EXPECT_EQ(brief(map_wcs(source, axes_of({{1, 0}}, {{0, 1}, {2, 1}}))), (Cards{"CRVAL1= 2.0"}));
}

TEST(Wcs, new_axes_have_the_defaults) {
  EXPECT_EQ(map_wcs(sky, axes_of({{0, 0}, {1, 0}, {none, 0}})), sky);
  EXPECT_EQ(
      brief(map_wcs(cards({"WCSAXESA= 1 / one", "CRVAL1A = 1.0"}), axes_of({{none, 0}, {0, 0}}))),
      (Cards{"WCSAXESA= 2 / one", "CRVAL2A= 1.0"}));
}

TEST(Wcs, beside_cd_a_new_axis_has_its_element) {
  const Cards source = cards({"CD1_1   = 2.0", "CD1_2   = 0.0", "CD2_2   = 3.0"});
  EXPECT_EQ(brief(map_wcs(source, axes_of({{none, 0}, {1, 0}}, {{0, 0}}))),
            (Cards{"CD2_2= 3.0", "CD1_1= 1.0"}));
}

TEST(Wcs, degenerate_axes_of_the_source_stay) {
  const Cards source =
      with(cards({"WCSAXES = 4"}), with(cube, cards({"CTYPE4  = 'STOKES'", "CRVAL4  = 1.0"})));
  // A plane of two axes, whose header carries the other two: cut, and put into a cube.
  EXPECT_EQ(
      brief(map_wcs(source, axes_of({{0, 0}, {1, 5}, {none, 0}}))),
      (Cards{"WCSAXES= 5", "CTYPE1= 'RA---TAN'", "CTYPE2= 'DEC--TAN'", "CRPIX1= 5.5 / x",
             "CRPIX2= 1.5 / y", "CRVAL1= 10.0", "CRVAL2= 20.0", "CDELT1= -0.5", "CDELT2= 0.25",
             "RADESYS= 'ICRS'", "CTYPE4= 'FREQ'", "CRPIX4= 1.0", "CRVAL4= 1.4E9", "CDELT4= 1.0E6",
             "RESTFRQ= 1.42E9", "SPECSYS= 'LSRK'", "CTYPE5= 'STOKES'", "CRVAL5= 1.0"}));
}

TEST(Wcs, a_broken_axis_and_those_that_depend_on_it_get_the_defaults) {
  EXPECT_EQ(brief(map_wcs(cube, axes_of({{0, 3}, {1, 0}, {2, 0}}, {}, {1}))),
            (Cards{"CTYPE3= 'FREQ'", "CRPIX3= 1.0", "CRVAL3= 1.4E9", "CDELT3= 1.0E6",
                   "RESTFRQ= 1.42E9", "SPECSYS= 'LSRK'"}));
  EXPECT_EQ(map_wcs(cube, axes_of({{0, 0}, {1, 0}, {2, 0}}, {}, {2})), sky);
}

TEST(Wcs, an_alternate_of_which_nothing_is_left_goes_whole) {
  const Cards source = with(sky, cards({"WCSNAMEA= 'detector'", "WCSAXESA= 2", "CRVAL1A = 1.0",
                                        "PC1_2A  = 0.0", "EQUINOXB= 2000.0"}));
  // B has no axes: what it says is not touched.
  EXPECT_EQ(map_wcs(source, axes_of({{1, 0}}, {{0, 0}})).back(), source.back());
  EXPECT_EQ(alternates_in(map_wcs(source, axes_of({{1, 0}}, {{0, 0}}))), " B");
  EXPECT_EQ(alternates_in(map_wcs(source, axes_of({{none, 0}}, {{0, 0}, {1, 0}}))), "B");
}

TEST(Wcs, celestial_cards_stay_where_no_axis_says_what_it_is) {
  const Cards source = cards({"CRVAL1  = 1.0", "CRVAL2  = 2.0", "EQUINOX = 2000.0"});
  EXPECT_EQ(brief(map_wcs(source, axes_of({{1, 0}}, {{0, 0}}))),
            (Cards{"CRVAL1= 2.0", "EQUINOX= 2000.0"}));
}

TEST(Wcs, crota_stays_with_a_cut_and_becomes_a_matrix_when_the_pair_moves) {
  const Cards source = with(sky, cards({"CROTA1  = 0.0", "CROTA2  = 90.0"}));
  const Cards cut = map_wcs(source, axes_of({{0, 1}, {1, 0}}));
  EXPECT_EQ(cut.back(), source.back());
  const Cards transposed = brief(map_wcs(source, axes_of({{1, 0}, {0, 0}})));
  ASSERT_EQ(transposed.size(), 13u);
  // Longitude is axis 2 now: x = -0.25 / -0.5 …
  EXPECT_EQ(Cards(transposed.begin() + 9, transposed.end()),
            (Cards{"PC2_2= 0.0", "PC2_1= 0.5", "PC1_2= -2.0", "PC1_1= 0.0"}));
  // Without a turn there is nothing to write.
  const Cards straight = with(sky, cards({"CROTA2  = 0.0"}));
  EXPECT_EQ(brief(map_wcs(straight, axes_of({{1, 0}, {0, 0}}))).back(), "CROTA1= 0.0");
  // A turn between coordinates one of which does not change has no matrix.
  const Cards flat =
      cards({"CTYPE1  = 'RA---TAN'", "CTYPE2  = 'DEC--TAN'", "CDELT1  = 0.0", "CROTA2  = 10.0"});
  EXPECT_TRUE(map_wcs(flat, axes_of({{1, 0}, {0, 0}})).empty());
}

TEST(Wcs, crota_that_a_matrix_overrides_does_not_outlive_it) {
  const Cards source = with(cube, cards({"PC3_3   = 1.0", "CROTA2  = 30.0"}));
  const PixelMap plane = axes_of({{0, 0}, {1, 0}}, {{2, 0}});
  EXPECT_EQ(map_wcs(source, plane), sky);
  EXPECT_EQ(brief(map_wcs(source, axes_of({{1, 0}, {0, 0}, {2, 0}}))).back(), "CROTA1= 30.0");
}

const Cards sip =
    cards({"CTYPE1  = 'RA---TAN-SIP'", "CTYPE2  = 'DEC--TAN-SIP'", "CRPIX1  = 5.0", "CRPIX2  = 6.0",
           "CD1_1   = 0.1", "CD2_2   = 0.2", "A_ORDER = 3", "B_ORDER = 2", "A_2_1   = 1.0E-5",
           "B_0_2   = 2.0E-5", "AP_ORDER= 1", "BP_ORDER= 1", "AP_1_0  = 3.0E-5", "A_DMAX  = 1.5"});

TEST(Wcs, sip_is_cut_and_transposed) {
  Cards cut = sip;
  cut[2] = make_card("CRPIX1", "-5.0", "");
  EXPECT_EQ(map_wcs(sip, axes_of({{0, 10}, {1, 0}})), cut);
  EXPECT_EQ(map_wcs(sip, axes_of({{1, 0}, {0, 0}})),
            cards({"CTYPE2  = 'RA---TAN-SIP'", "CTYPE1  = 'DEC--TAN-SIP'", "CRPIX2  = 5.0",
                   "CRPIX1  = 6.0", "CD2_2   = 0.1", "CD1_1   = 0.2", "B_ORDER = 3", "A_ORDER = 2",
                   "B_1_2   = 1.0E-5", "A_2_0   = 2.0E-5", "BP_ORDER= 1", "AP_ORDER= 1",
                   "BP_0_1  = 3.0E-5", "B_DMAX  = 1.5"}));
  EXPECT_EQ(brief(map_wcs(sip, axes_of({{0, 0}, {1, 0}, {none, 0}}))).back(), "CD3_3= 1.0");
}

TEST(Wcs, sip_on_other_axes_is_lost_with_all_that_need_it) {
  const Cards source =
      with(sip, cards({"CTYPE1A = 'GLON-TAN-SIP'", "CTYPE2A = 'GLAT-TAN-SIP'", "CRVAL1O = 1.0"}));
  for (const PixelMap& map :
       {axes_of({{none, 0}, {0, 0}, {1, 0}}), axes_of({{0, 0}}, {{1, 0}}),
        axes_of({{0, 0}, {none, 0}}, {{1, 5}}), axes_of({{0, 0}, {1, 0}}, {}, {1})}) {
    const Cards mapped = map_wcs(source, map);
    ASSERT_EQ(mapped.size(), 1u);
    EXPECT_EQ(alternate_of(mapped[0]), 'O');
  }
  EXPECT_EQ(alternates_in(map_wcs(source, axes_of({{1, 0}, {0, 0}}))), " AO");
  // The polynomials are the primary's: without them an alternate that needs them is none.
  const Cards alone = cards({"CTYPE1A = 'GLON-TAN-SIP'", "CTYPE2A = 'GLAT-TAN-SIP'"});
  EXPECT_TRUE(map_wcs(alone, axes_of({{1, 0}, {0, 0}})).empty());
  // In the primary without polynomials the suffix says nothing.
  const Cards linear = cards({"CTYPE1  = 'RA---TAN-SIP'", "CTYPE2  = 'DEC--TAN-SIP'"});
  EXPECT_EQ(map_wcs(linear, axes_of({{none, 0}, {0, 0}, {1, 0}})).size(), 2u);
}

TEST(Wcs, polynomial_projections_stay_on_their_axes) {
  const Cards tpv = cards({"CTYPE1  = 'RA---TPV'", "CTYPE2  = 'DEC--TPV'", "PV1_4   = 0.1",
                           "PV2_1   = 1.0", "CRPIX1  = 1.0"});
  EXPECT_EQ(map_wcs(tpv, axes_of({{0, 1}, {1, 0}, {none, 0}})).size(), 5u);
  EXPECT_TRUE(map_wcs(tpv, axes_of({{1, 0}, {0, 0}})).empty());
  EXPECT_TRUE(map_wcs(tpv, axes_of({{none, 0}, {0, 0}, {1, 0}})).empty());
}

TEST(Wcs, tables_in_other_hdus_cost_the_alternate_by_any_map) {
  const PixelMap identity = axes_of({{0, 0}, {1, 0}});
  for (const char* text :
       {"CTYPE1A = 'WAVE-TAB'", "CPDIS1A = 'LOOKUP'", "CQDIS2A = 'Lookup' / table"}) {
    const Cards source = with(sky, cards({"CRVAL1A = 1.0", text, "PS1_0A  = 'WCS-TABLE'"}));
    EXPECT_EQ(map_wcs(source, identity), sky) << text;
    EXPECT_EQ(alternates_in(map_wcs(source, axes_of({{0, 1}, {1, 0}}))), " ") << text;
  }
  EXPECT_TRUE(map_wcs(with(sky, cards({"D2IMDIS1= 'LOOKUP'"})), identity).empty());
  const Cards with_table = with(sip, cards({"CPDIS1  = 'LOOKUP'", "CTYPE1A = 'RA---TAN-SIP'",
                                            "CTYPE2A = 'DEC--TAN-SIP'", "CRVAL1O = 1.0"}));
  EXPECT_EQ(alternates_in(map_wcs(with_table, identity)), "O");
}

TEST(Wcs, functions_of_distortion_need_no_table_but_stay_on_their_pixels) {
  const Cards source =
      with(sky, cards({"CPDIS1  = 'Polynomial'", "DP1     = 'NAXES: 2'", "DP1     = 'AXIS.1: 1'"}));
  EXPECT_EQ(map_wcs(source, axes_of({{0, 0}, {1, 0}})), source);
  EXPECT_TRUE(map_wcs(source, axes_of({{0, 1}, {1, 0}})).empty());
}

TEST(Wcs, what_is_not_understood_goes_unless_by_the_identity) {
  for (const char* text :
       {"CD001002= 1.0", "PC001001= 1.0", "WAXMAP01= '1 0'", "CRPIX2A = 'x'", "CDELT3  = one",
        "PC1_2   = 1e400", "CROTA2  = ", "WCSAXES = 0", "WCSAXES = 100", "WCSAXES = -1",
        "WCSAXES = 1.5", "CTYPE3  = 'GLON-CAR'", "CTYPE9  = 'RA---TAN'"}) {
    const Cards source = with(sky, cards({text}));
    EXPECT_EQ(map_wcs(source, axes_of({{0, 0}, {1, 0}})), source) << text;
    const Cards mapped = map_wcs(source, axes_of({{1, 0}, {0, 0}}));
    EXPECT_EQ(alternates_in(mapped), text == std::string("CRPIX2A = 'x'") ? " " : "") << text;
  }
  EXPECT_TRUE(
      map_wcs(with(sky, cards({"PC1_1   = 1.0", "CD1_1   = 1.0"})), axes_of({{1, 0}, {0, 0}}))
          .empty());
  EXPECT_TRUE(map_wcs(cards({"CTYPE1  = 'RA---TAN'"}), axes_of({{0, 1}})).empty());
  // Keywords that must be longer than keywords are.
  EXPECT_TRUE(
      map_wcs(cards({"WCSAXES = 99", "CRVAL1  = 1.0"}), axes_of({{0, 0}, {none, 0}})).empty());
  EXPECT_TRUE(map_wcs(cards({"WAT9_001= 'wtype=linear'"}), axes_of({{0, 0}, {none, 0}})).empty());
}

TEST(Wcs, the_first_of_cards_with_one_keyword_counts) {
  const Cards source = cards({"CRPIX1  = 5.0", "CRPIX1  = 7.0"});
  EXPECT_EQ(map_wcs(source, axes_of({{0, 1}})), Cards{make_card("CRPIX1", "4.0", "")});
}

TEST(Wcs, old_keywords_move_with_their_axes) {
  const Cards source = cards({"WCSDIM  = 3", "CTYPE1  = 'LINEAR'", "CTYPE3  = 'VELO-LSR'",
                              "ALTRPIX = 10.0", "ALTRVAL = 1.4E9", "VELREF  = 257",
                              "WAT0_001= 'system=image'", "WAT3_001= 'wtype=linear'"});
  EXPECT_EQ(
      brief(map_wcs(source, axes_of({{2, 4}}, {{0, 0}, {1, 0}}))),
      (Cards{"WCSDIM= 1", "CTYPE1= 'VELO-LSR'", "ALTRPIX= 6.0", "ALTRVAL= 1.4E9", "VELREF= 257",
             "WAT0_001= 'system=image'", "WAT1_001= 'wtype=linear'", "CRPIX1= -4.0"}));
}

// Any cards whatever: no crash, whole cards, and what is of no alternate as it was.
TEST(Wcs, hostile_cards_do_no_harm) {
  std::mt19937_64 random(20240916);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const std::vector<std::string> keywords = {
      "WCSAXES", "CRPIX",   "CTYPE",   "CDELT", "CROTA", "PC", "CD",     "PV",     "A_",
      "CUNIT",   "EQUINOX", "RESTFRQ", "WAT",   "CPDIS", "DP", "OBJECT", "WCSDIM", "ALTRPIX"};
  const std::vector<std::string> values = {
      "1",          "99",        "-3.5E2",     "'RA---TAN'", "'DEC--TAN'",
      "'WAVE-TAB'", "''",        "'",          "'FREQ",      "1e308",
      "-",          "T",         "'CUBEFACE'", "0",          "'RA---TAN-SIP'",
      "'GLAT'",     "'-------'", "'RA-'",      "45",         "2"};
  for (int turn = 0; turn < 20000; ++turn) {
    Cards source;
    for (std::size_t n = below(12); n > 0; --n) {
      std::string keyword = keywords[below(keywords.size())];
      if (below(6) > 0) keyword += std::to_string(below(3) == 0 ? below(100) : 1 + below(3));
      if (below(3) == 0) keyword += '_' + std::to_string(1 + below(3));
      if (below(4) == 0) keyword += "AZ0"[below(3)];
      keyword.resize(8, ' ');
      source.push_back(card(keyword + "= " + values[below(values.size())]));
      if (below(50) == 0)
        for (char& c : source.back()) c = static_cast<char>(below(256));
    }
    PixelMap map;
    for (std::size_t n = 1 + below(4); n > 0; --n)
      map.axes.push_back({below(4) == 0 ? none : std::optional(below(4)),
                          below(9) == 0 ? INT64_MIN : static_cast<std::int64_t>(below(9))});
    if (below(2) == 0) map.fixed.push_back({below(200), INT64_MAX});
    if (below(4) == 0) map.broken.push_back(below(200));
    const auto others = [](const Cards& all) {
      Cards result;
      for (const std::string& c : all)
        if (!alternate_of(c)) result.push_back(c);
      return result;
    };
    const Cards mapped = map_wcs(source, map);
    EXPECT_EQ(others(mapped), others(source));
    for (const std::string& c : mapped) EXPECT_EQ(c.size(), card_length);
    EXPECT_LE(mapped.size(), source.size() + 3 * 120);
  }
}

}  // namespace
}  // namespace accrete
