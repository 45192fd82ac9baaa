// A slide reader in C++: a file of "GREY", width and height in a byte each, then a byte a pixel.
#include "weir_plugin.hpp"

#include <fstream>
#include <iterator>

namespace {

class Grey : public weir::reader {
 public:
  static int32_t sniff(std::string_view, const uint8_t *head, size_t len) {
    if (len == 5) throw std::string("what a sniff throws is no file of its reader's");
    return len >= 6 && std::string_view(reinterpret_cast<const char *>(head), 4) == "GREY" ? 90 : 0;
  }
  Grey(std::string_view path, weir::call &) {
    std::ifstream file{std::string(path), std::ios::binary};
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    if (bytes_.size() < 6) throw weir::error("the file ends before its size").help("scan it again");
    level_.width = static_cast<uint8_t>(bytes_[4]);
    level_.height = static_cast<uint8_t>(bytes_[5]);
    level_.downsample = 1;
    facts_.struct_size = sizeof facts_;
    facts_.mpp_origin = WEIR_MPP_VENDOR;
    facts_.format = weir::str("grey");
    facts_.vendor = weir::str("none");
    facts_.mpp_x = facts_.mpp_y = 0.25;
    facts_.n_levels = 1;
  }
  const weir_facts &info(weir::call &) override {
    // Here and not before: the object was moved to where it stays.
    facts_.levels = &level_;
    return facts_;
  }
  void read_region(weir::call &, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into,
                   size_t pitch) override {
    if (level != 0) throw weir::error("there is one level");
    for (uint32_t row = 0; row < height; row++) {
      for (uint32_t column = 0; column < width; column++) {
        const int64_t at_x = x + column, at_y = y + row;
        uint8_t grey = 255;
        if (at_x >= 0 && at_x < level_.width && at_y >= 0 && at_y < level_.height) {
          const size_t at = 6 + static_cast<size_t>(at_y * level_.width + at_x);
          if (at >= bytes_.size()) throw weir::error("the file ends in row " + std::to_string(at_y));
          grey = static_cast<uint8_t>(bytes_[at]);
        }
        std::memset(into + row * pitch + column * size_t{3}, grey, 3);
      }
    }
  }

 private:
  std::vector<char> bytes_;
  weir_level level_{};
  weir_facts facts_{};
};

WEIR_MANIFEST(R"({"weir-abi": "1.0", "name": "grey", "version": "1.0.0", "summary": "Grey files",
  "readers": [{"id": "grey", "summary": "Grey files", "extensions": ["grey"]}]})");

}  // namespace

WEIR_PLUGIN(weir::slides<Grey>("grey", WEIR_READER_PARALLEL))
