// A source, a map, a reduce and a sink in C++ that throw where they are told to: for the tests of what becomes of it in a run.
#include "weir_plugin.hpp"

#include <cstdio>
#include <fstream>
#include <map>
#include <stdexcept>

namespace {

constexpr int TILES = 6;
constexpr int SIDE = 256;
// Times that a source has nothing yet between its generations: time for the first one to reach the sink.
constexpr int PAUSE = 20;

// Where something is thrown, and what.
class Sin {
 public:
  explicit Sin(const weir::values &values) : at_(values.text(0)), what_(values.text(1)) {}
  void may_throw(std::string_view here) const {
    if (here != at_) return;
    if (what_ == "number") throw 7;
    throw std::runtime_error("on purpose, in " + at_);
  }

 private:
  std::string at_, what_;
};

class Opened : public weir::open_slide {
 public:
  Opened(Sin sin, uint64_t number) : sin_(std::move(sin)), number_(number) {}
  // All tiles; then a second generation without the first one.
  weir_status next(weir::call &, weir_step &out) override {
    const int i = at_++;
    if (i == TILES) return out.kind = WEIR_STEP_CLOSE, WEIR_OK;
    if (i > TILES && i <= TILES + PAUSE) return WEIR_IDLE;
    if (i > TILES + PAUSE + 1) return WEIR_END;
    if (number_ == 0 && i == 2) sin_.may_throw("next");
    out.kind = i < TILES ? WEIR_STEP_TILE : WEIR_STEP_GONE;
    out.x = i < TILES ? i * SIDE : 0;
    out.width = 2;
    out.height = 1;
    return WEIR_OK;
  }
  void read(weir::call &, const weir_row &row, void *into, size_t len) override {
    const float values[2] = {static_cast<float>(row.x + 1), static_cast<float>(number_) + 0.3F};
    if (len != sizeof values) throw weir::error("another size");
    if (number_ == 0 && row.x == SIDE) sin_.may_throw("read");
    std::memcpy(into, values, len);
  }

 private:
  Sin sin_;
  uint64_t number_;
  int at_ = 0;
};

class Grid : public weir::source {
 public:
  Grid(const weir::values &values, weir::call &) : sin_(values) {}
  bool slide(weir::call &, uint64_t i, weir::slide_info &out) override {
    out.id = i == 0 ? "a" : "b";
    out.path = "none";
    return i < 2;
  }
  std::unique_ptr<weir::open_slide> open(weir::call &call, uint64_t i, void *, weir::slide_info &out) override {
    if (!slide(call, i, out)) throw weir::error("no such slide");
    if (i == 0) sin_.may_throw("open");
    out.width = TILES * SIDE;
    out.height = SIDE;
    out.mpp_x = out.mpp_y = 0.5;
    out.tile_footprint = SIDE;
    out.tiles = TILES;
    return std::make_unique<Opened>(sin_, i);
  }

 private:
  Sin sin_;
};

// Whether it is the tile at which a stage sins.
bool is_first(const weir::batch &batch, uint32_t i) {
  return weir::view(batch.slide(i).id) == "a" && batch.row(i).x == SIDE;
}

class Third : public weir::work {
 public:
  Third(const weir::values &values, weir::call &) : sin_(values) {}
  void process(weir::call &call, uint32_t, const weir::batch &batch) override {
    const auto in = batch.column<float>("features");
    weir::draft made = call.make_all();
    const auto out = made.column<float>("features");
    for (uint32_t i = 0; i < batch.size(); i++) {
      if (is_first(batch, i)) sin_.may_throw("process");
      for (size_t k = 0; k < in.size(i); k++) out.row(i)[k] = in.row(i)[k] / 3;
    }
    std::move(made).emit();
  }

 private:
  Sin sin_;
};

// What is held of each slide: of each of its tiles one number.
class Held : public weir::collect {
 public:
  explicit Held(const weir::values &values) : sin_(values) {}
  void remove(weir::call &, uint32_t, const weir_row *rows, uint32_t n_rows) override {
    for (uint32_t i = 0; i < n_rows; i++) {
      // Slides have numbers of their own, so of one that holds no first tile of `a` nothing is known here but that.
      if (first_of_a_ == rows[i].key.slide) sin_.may_throw("remove");
      slides_[rows[i].key.slide].erase(rows[i].key.tile);
    }
  }
  void close_slide(uint64_t slide) override { slides_.erase(slide); }

 protected:
  void keep(const weir::batch &batch, uint32_t i, float value) {
    if (weir::view(batch.slide(i).id) == "a") first_of_a_ = batch.row(i).key.slide;
    if (is_first(batch, i)) sin_.may_throw("process");
    slides_[batch.row(i).key.slide][batch.row(i).key.tile] = value;
  }
  const std::map<uint64_t, float> &completed(const weir_slide &slide) {
    if (weir::view(slide.id) == "a") sin_.may_throw("complete_slide");
    return slides_[slide.number];
  }
  // A line a tile, to the bit.
  void write(weir::call &call, const weir_slide &slide) {
    std::ofstream file(std::string(call.folder()) + "/" + std::string(weir::view(slide.id)) + ".txt");
    for (const auto &[tile, value] : completed(slide)) {
      uint32_t bits = 0;
      std::memcpy(&bits, &value, sizeof bits);
      file << tile << " " << bits << "\n";
    }
    if (!file.flush()) throw weir::error("the file cannot be written");
  }

 private:
  Sin sin_;
  uint64_t first_of_a_ = UINT64_MAX;
  std::map<uint64_t, std::map<uint64_t, float>> slides_;
};

class Weigh : public Held {
 public:
  Weigh(const weir::values &values, weir::call &) : Held(values) {}
  void process(weir::call &, uint32_t, const weir::batch &batch) override {
    const auto features = batch.column<float>("features");
    for (uint32_t i = 0; i < batch.size(); i++) keep(batch, i, features.row(i)[0] + features.row(i)[1]);
  }
  void complete_slide(weir::call &call, const weir_slide &slide, uint32_t, uint32_t) override {
    const std::map<uint64_t, float> &tiles = completed(slide);
    std::vector<uint64_t> keys;
    float sum = 0;
    for (const auto &[tile, value] : tiles) keys.push_back(tile), sum += value;
    weir::draft shares = call.make_for(0, slide.number, keys);
    const auto weights = shares.column<float>("weight");
    uint32_t i = 0;
    for (const auto &[tile, value] : tiles) weights.row(i++)[0] = value / sum;
    std::move(shares).emit();
  }
};

class Write : public Held {
 public:
  Write(const weir::values &values, weir::call &) : Held(values) {}
  void process(weir::call &, uint32_t, const weir::batch &batch) override {
    const auto weights = batch.column<float>("weight");
    for (uint32_t i = 0; i < batch.size(); i++) keep(batch, i, weights.row(i)[0]);
  }
  void complete_slide(weir::call &call, const weir_slide &slide, uint32_t, uint32_t) override {
    write(call, slide);
  }
};

// Of features, of which some are withdrawn before the slide ends.
class List : public Held {
 public:
  List(const weir::values &values, weir::call &) : Held(values) {}
  void process(weir::call &, uint32_t, const weir::batch &batch) override {
    const auto features = batch.column<float>("features");
    for (uint32_t i = 0; i < batch.size(); i++) keep(batch, i, features.row(i)[0]);
  }
  void complete_slide(weir::call &call, const weir_slide &slide, uint32_t, uint32_t) override { write(call, slide); }
};

#define PARAMS                                                                         \
  R"("params": [{"name": "at", "type": "string", "default": "none", "doc": "Where"},)" \
  R"({"name": "what", "type": "string", "default": "error", "doc": "What"}])"
#define FEATURES R"({"name": "features", "kind": "features", "shape": [2]})"
#define SHARES R"({"name": "shares", "kind": "attention"})"

WEIR_MANIFEST(R"({"weir-abi": "1.0", "name": "throws", "version": "1.0.0", "summary": "Throws where it is told to", "stages": [)"
              R"({"id": "throws.grid", "summary": "Features of two slides", "rows": "source", "out": [)" FEATURES "]," PARAMS "},"
              R"({"id": "throws.third", "summary": "A third", "rows": "map", "in": [)" FEATURES R"(], "out": [)" FEATURES "]," PARAMS "},"
              R"({"id": "throws.weigh", "summary": "Weighs", "rows": "reduce", "in": [)" FEATURES R"(], "out": [)" SHARES "]," PARAMS "},"
              R"({"id": "throws.write", "summary": "Writes", "rows": "sink", "in": [)" SHARES "]," PARAMS "},"
              R"({"id": "throws.list", "summary": "Writes", "rows": "sink", "in": [)" FEATURES "]," PARAMS "}]}");

}  // namespace

WEIR_PLUGIN(weir::stage<Grid>("throws.grid"), weir::stage<Third>("throws.third"), weir::stage<Weigh>("throws.weigh"),
            weir::stage<Write>("throws.write"), weir::stage<List>("throws.list"))
