// A map, a filter, a sink and a source in C++, with every way to fail.
#include "weir_plugin.hpp"

#include <fstream>
#include <map>
#include <stdexcept>

namespace {

class Mean : public weir::work {
 public:
  Mean(const weir::values &values, weir::call &call) : factor_(values.number(0)) {
    if (factor_ == 0.0) throw weir::error::param("factor", "nothing would be left").help("take another number");
    call.log(WEIR_LOG_INFO, "begun");
  }
  void process(weir::call &call, uint32_t, const weir::batch &batch) override {
    const auto pixels = batch.column<uint8_t>("pixels");
    weir::draft out = call.make_all();
    const auto features = out.column<float>("features");
    for (uint32_t i = 0; i < batch.size(); i++) {
      uint64_t sum = 0;
      for (size_t at = 0; at < pixels.size(i); at++) sum += pixels.row(i)[at];
      features.row(i)[0] = static_cast<float>(factor_ * static_cast<double>(sum) / static_cast<double>(pixels.size(i)));
    }
    std::move(out).emit();
  }

 private:
  double factor_;
};

class Odd : public weir::work {
 public:
  Odd(const weir::values &, weir::call &) {}
  void process(weir::call &call, uint32_t, const weir::batch &batch) override {
    std::vector<uint32_t> kept;
    for (uint32_t i = 0; i < batch.size(); i++) {
      switch (batch.column<uint8_t>("pixels").row(i)[0]) {
        case 0: throw std::runtime_error("nothing to see");
        case 1: throw 7;
        case 2: batch.column<float>("pixels"); break;
        case 4: throw weir::error("said no", WEIR_OK);
        case 5: throw weir::error("said no twice", WEIR_PENDING);
        case 3: call.skip(i, "three"); break;
        default: kept.push_back(i);
      }
    }
    call.pass(0, kept);
  }
};

class Count : public weir::collect {
 public:
  Count(const weir::values &, weir::call &) {}
  void process(weir::call &, uint32_t, const weir::batch &batch) override {
    for (uint32_t i = 0; i < batch.size(); i++) tiles_[batch.row(i).key.slide]++;
  }
  void remove(weir::call &, uint32_t, const weir_row *rows, uint32_t n_rows) override {
    for (uint32_t i = 0; i < n_rows; i++) tiles_[rows[i].key.slide]--;
  }
  void complete_slide(weir::call &call, const weir_slide &slide, uint32_t, uint32_t) override {
    std::ofstream file(std::string(call.folder()) + "/" + std::string(weir::view(slide.id)));
    file << tiles_[slide.number];
    if (!file.flush()) throw weir::error("the file cannot be written");
  }

 private:
  std::map<uint64_t, int> tiles_;
};

class OneTile : public weir::open_slide {
 public:
  weir_status next(weir::call &call, weir_step &out) override {
    out.width = 2;
    switch (at_++) {
      case 0: out.kind = WEIR_STEP_TILE; return WEIR_OK;
      case 1: call.fail(weir::error("torn")); out.kind = WEIR_STEP_FAIL; return WEIR_OK;
      default: return WEIR_END;
    }
  }
  void read(weir::call &, const weir_row &, void *into, size_t len) override {
    const float values[2] = {1.5F, -2.5F};
    if (len != sizeof values) throw weir::error("another size");
    std::memcpy(into, values, len);
  }

 private:
  int at_ = 0;
};

class Two : public weir::source {
 public:
  Two(const weir::values &values, weir::call &call) {
    for (const std::string_view name : values.texts(0)) call.log(WEIR_LOG_INFO, name);
    for (const weir::slide_file &file : values.slides(1)) {
      call.log(WEIR_LOG_INFO, std::string(file.id) + " of " + std::string(file.label) + " at " + std::to_string(file.mpp));
    }
  }
  bool slide(weir::call &, uint64_t i, weir::slide_info &out) override {
    out.id = "a slide with a long name, number " + std::to_string(i);
    out.path = "p";
    return i < 2;
  }
  std::unique_ptr<weir::open_slide> open(weir::call &call, uint64_t i, void *, weir::slide_info &out) override {
    if (!slide(call, i, out)) throw weir::error("no such slide");
    out.tile_footprint = 512;
    return std::make_unique<OneTile>();
  }
};

WEIR_MANIFEST(R"({"weir-abi": "1.0", "name": "cpp", "version": "1.0.0", "summary": "C++", "stages": [
  {"id": "cpp.mean", "summary": "Means", "rows": "map", "concurrency": "parallel",
   "params": [{"name": "factor", "type": "float", "default": 1.0, "doc": "Factor"}],
   "in": [{"name": "tiles", "kind": "pixels", "shape": ["h", "w", 3]}], "out": [{"name": "features", "kind": "features", "shape": [1]}]},
  {"id": "cpp.odd", "summary": "Odd", "rows": "filter",
   "in": [{"name": "tiles", "kind": "pixels", "shape": ["h", "w", 3]}], "out": [{"name": "tiles", "kind": "pixels", "shape": ["h", "w", 3]}]},
  {"id": "cpp.count", "summary": "Counts", "rows": "sink", "in": [{"name": "tiles", "kind": "pixels", "shape": ["h", "w", 3]}]},
  {"id": "cpp.two", "summary": "Two slides", "rows": "source",
   "params": [{"name": "names", "type": "strings", "default": [], "doc": "Names"},
              {"name": "files", "type": "slides", "default": [], "doc": "Files"}],
   "out": [{"name": "features", "kind": "features", "shape": [2]}]}]})");

}  // namespace

WEIR_PLUGIN(weir::stage<Mean>("cpp.mean", WEIR_STAGE_PARALLEL), weir::stage<Odd>("cpp.odd"), weir::stage<Count>("cpp.count"),
            weir::stage<Two>("cpp.two"))
