// weir_plugin.h for C++17: classes instead of pointers, and no exception that leaves the plugin.
//
//   class Mean : public weir::work {
//    public:
//     Mean(const weir::values &values, weir::call &call);           // throws weir::error to refuse a parameter
//     void process(weir::call &call, uint32_t port, const weir::batch &batch) override;
//   };
//   WEIR_MANIFEST(R"({"weir-abi": "1.0", ...})");
//   WEIR_PLUGIN(weir::stage<Mean>("mean.features", WEIR_STAGE_PARALLEL))
//
// The header above all is weir_plugin.h: what a function means, who owns what and when it may be called stands there.
// No class leaves a call pending (WEIR_PENDING, complete, cancel): such a stage fills its table by hand.
#ifndef WEIR_PLUGIN_HPP
#define WEIR_PLUGIN_HPP
#include "weir_plugin.h"

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace weir {

inline weir_str str(std::string_view text) noexcept { return {text.data(), text.size()}; }
inline std::string_view view(weir_str text) noexcept { return {text.ptr, text.len}; }

// What goes wrong, with its status, which is one of the negative ones (of another it is WEIR_E_FAIL), the parameter at fault and what to do. Any other exception is WEIR_E_FAIL with its what().
class error : public std::exception {
 public:
  explicit error(std::string message, weir_status status = WEIR_E_FAIL) : message_(std::move(message)), status_(status) {}
  // A parameter is unusable: of constructors.
  static error param(std::string name, std::string message) {
    error it(std::move(message), WEIR_E_PARAM);
    it.param_ = std::move(name);
    return it;
  }
  error help(std::string text) && {
    help_ = std::move(text);
    return std::move(*this);
  }
  const char *what() const noexcept override { return message_.c_str(); }
  weir_status status() const noexcept { return status_; }
  weir_error raw() const noexcept { return {str(message_), str(param_), str(help_)}; }

 private:
  std::string message_, param_, help_;
  weir_status status_;
};

template <class T>
constexpr weir_dtype dtype() noexcept {
  static_assert(std::is_arithmetic_v<T>, "a column holds numbers");
  constexpr uint8_t code = std::is_floating_point_v<T> ? 2 : std::is_unsigned_v<T> ? 1 : 0;
  return {code, static_cast<uint8_t>(8 * sizeof(T)), 1};
}

// A column whose rows lie side by side in the processor's memory.
template <class T>
class column {
 public:
  explicit column(const weir_column &raw) : raw_(&raw) {
    using plain = std::remove_const_t<T>;
    const weir_dtype is = raw.dtype, wanted = dtype<plain>();
    const std::string name(view(raw.name));
    if (is.code != wanted.code || is.bits != wanted.bits || is.lanes != 1) throw error("column `" + name + "` is of another type");
    if (raw.device.type != 1 && raw.device.type != 3) throw error("column `" + name + "` lies on a device");
    for (int32_t i = raw.ndim - 1; i >= 0; i--) {
      if (raw.strides != nullptr && raw.shape[i] != 1 && raw.strides[i] != static_cast<int64_t>(size_)) {
        throw error("the elements of column `" + name + "` do not lie side by side");
      }
      if (raw.shape[i] >= 0) size_ *= static_cast<size_t>(raw.shape[i]);
      open_ = open_ || raw.shape[i] < 0;
    }
  }
  T *row(uint32_t i) const noexcept { return static_cast<T *>(raw_->rows[i]); }
  // Elements of row i.
  size_t size(uint32_t i) const noexcept { return open_ ? size_ * raw_->lengths[i] : size_; }
  int64_t shape(int32_t i) const noexcept { return raw_->shape[i]; }
  int32_t ndim() const noexcept { return raw_->ndim; }

 private:
  const weir_column *raw_;
  size_t size_ = 1;
  bool open_ = false;
};

inline const weir_column &find(const weir_batch &batch, std::string_view name) {
  for (uint32_t i = 0; i < batch.n_columns; i++) {
    if (view(batch.columns[i].name) == name) return batch.columns[i];
  }
  throw error("the batch has no column `" + std::string(name) + "`");
}

// Rows that came: the host's memory, which nobody changes.
class batch {
 public:
  explicit batch(const weir_batch &raw) noexcept : raw_(&raw) {}
  uint32_t size() const noexcept { return raw_->n_rows; }
  const weir_row &row(uint32_t i) const noexcept { return raw_->rows[i]; }
  const weir_slide &slide(uint32_t i) const noexcept { return *raw_->slides[raw_->rows[i].slide]; }
  template <class T>
  weir::column<const T> column(std::string_view name) const {
    return weir::column<const T>(find(*raw_, name));
  }
  const weir_batch &raw() const noexcept { return *raw_; }

 private:
  const weir_batch *raw_;
};

inline void check(weir_status status, const char *what) {
  if (status < 0) throw error(std::string("the host refused ") + what + "; its log says why", status == WEIR_E_USE ? WEIR_E_FAIL : status);
}

// A batch to be filled and emitted. Destroyed, it is given back.
class draft {
 public:
  draft(const weir_host &host, weir_call *call, uint32_t port, weir_batch *raw) : host_(&host), call_(call), port_(port), raw_(raw) {
    if (raw == nullptr) throw error("the host has no memory for a batch, or refused it; its log says which", WEIR_E_MEMORY);
  }
  draft(draft &&other) noexcept : host_(other.host_), call_(other.call_), port_(other.port_), raw_(std::exchange(other.raw_, nullptr)) {}
  draft(const draft &) = delete;
  draft &operator=(const draft &) = delete;
  draft &operator=(draft &&) = delete;
  ~draft() {
    if (raw_ != nullptr) host_->batch_release(raw_);
  }
  uint32_t size() const noexcept { return raw_->n_rows; }
  template <class T>
  weir::column<T> column(std::string_view name) {
    const weir_column &raw = find(*raw_, name);
    if ((raw.flags & WEIR_COLUMN_WRITABLE) == 0) throw error("column `" + std::string(name) + "` may not be written to");
    return weir::column<T>(raw);
  }
  void emit() && { check(host_->emit(call_, port_, std::exchange(raw_, nullptr)), "a batch"); }

 private:
  const weir_host *host_;
  weir_call *call_;
  uint32_t port_;
  weir_batch *raw_;
};

// An open call; its functions may be called from any thread.
class call {
 public:
  call(const weir_host &host, weir_call *raw, const weir_batch *input = nullptr) noexcept : host_(&host), raw_(raw), input_(input) {}
  void log(int32_t level, std::string_view text) const noexcept { host_->log(raw_, level, str(text)); }
  // Of a step that fails, and of a call that returns a failure by itself.
  void fail(const error &why) const noexcept {
    const weir_error raw = why.raw();
    host_->fail(raw_, &raw);
  }
  bool cancelled() const noexcept { return host_->cancelled(raw_) != 0; }
  std::string_view folder() const noexcept { return view(host_->folder(raw_)); }
  void count(std::string_view name, uint64_t by) const noexcept {
    const auto *metrics = static_cast<const weir_metrics_v1 *>(host_->extension("weir.metrics/1"));
    if (metrics != nullptr) metrics->count(raw_, str(name), by);
  }
  draft make(uint32_t port, const std::vector<uint32_t> &source) const {
    return {*host_, raw_, port, host_->batch_new(raw_, port, static_cast<uint32_t>(source.size()), source.data())};
  }
  draft make_all(uint32_t port = 0) const {
    std::vector<uint32_t> all(input_ == nullptr ? 0 : input_->n_rows);
    for (uint32_t i = 0; i < all.size(); i++) all[i] = i;
    return make(port, all);
  }
  draft make_for(uint32_t port, uint64_t slide, const std::vector<uint64_t> &tiles) const {
    return {*host_, raw_, port, host_->batch_for(raw_, port, slide, static_cast<uint32_t>(tiles.size()), tiles.data())};
  }
  draft edit(uint32_t port = 0) const { return {*host_, raw_, port, host_->batch_edit(raw_, port)}; }
  void pass(uint32_t port, const std::vector<uint32_t> &rows) const {
    check(host_->pass(raw_, port, rows.data(), static_cast<uint32_t>(rows.size())), "rows");
  }
  void table(uint32_t port, uint32_t source, std::string_view bytes) const {
    check(host_->table(raw_, port, source, bytes.data(), bytes.size()), "a table");
  }
  void skip(uint32_t row, std::string_view reason) const { check(host_->skip(raw_, row, str(reason)), "a skipped row"); }
  void fail_row(uint32_t row, const error &why) const {
    const weir_error raw = why.raw();
    check(host_->fail_row(raw_, row, &raw), "a failed row");
  }
  const weir_host &host() const noexcept { return *host_; }
  weir_call *raw() const noexcept { return raw_; }

 private:
  const weir_host *host_;
  weir_call *raw_;
  const weir_batch *input_;
};

// An item of a parameter of type "slides": a file, with what a manifest says of it. Texts may be empty; mpp is 0 where nobody says it.
struct slide_file {
  std::string_view path, id, patient, label, split;
  double mpp;
};

// Values of the parameters, in the manifest's order. Views live until the constructor returns.
class values {
 public:
  values(const weir_value *raw, uint32_t n) noexcept : raw_(raw), n_(n) {}
  const weir_value &at(uint32_t i, uint32_t kind) const {
    if (i >= n_ || raw_[i].kind != kind) throw error("the host gave other values than the manifest's parameters");
    return raw_[i];
  }
  bool is_set(uint32_t i) const noexcept { return i < n_ && raw_[i].kind != WEIR_UNSET; }
  bool boolean(uint32_t i) const { return at(i, WEIR_BOOL).i != 0; }
  int64_t integer(uint32_t i) const { return at(i, WEIR_INT).i; }
  double number(uint32_t i) const { return at(i, WEIR_FLOAT).f; }
  std::string_view text(uint32_t i) const { return view(at(i, WEIR_STRING).s); }
  std::string_view choice(uint32_t i) const { return view(at(i, WEIR_INT).s); }
  // Of type "strings".
  std::vector<std::string_view> texts(uint32_t i) const {
    std::vector<std::string_view> all;
    for (const weir_value &item : items(at(i, WEIR_LIST))) all.push_back(view(item.s));
    return all;
  }
  // Of type "slides".
  std::vector<slide_file> slides(uint32_t i) const {
    std::vector<slide_file> all;
    for (const weir_value &item : items(at(i, WEIR_LIST))) {
      if (item.n < 4) throw error("the host gave a slide without its id, patient, label and split");
      const weir_value *said = item.items;
      all.push_back({view(item.s), view(said[0].s), view(said[1].s), view(said[2].s), view(said[3].s), item.f});
    }
    return all;
  }

 private:
  static std::vector<weir_value> items(const weir_value &list) { return {list.items, list.items + list.n}; }

  const weir_value *raw_;
  uint32_t n_;
};

// A map or a filter.
class work {
 public:
  virtual ~work() = default;
  virtual void process(call &, uint32_t port, const batch &) = 0;
  // Reserved: a size that the manifest left open, or -1. Hosts of 1.0 do not ask.
  virtual int64_t size(uint32_t /* port */, std::string_view /* symbol */) { return -1; }
};

// A reduce or a sink.
class collect : public work {
 public:
  virtual void remove(call &, uint32_t port, const weir_row *rows, uint32_t n_rows) = 0;
  virtual void complete_slide(call &, const weir_slide &, uint32_t rev, uint32_t end) = 0;
  virtual void close_slide(uint64_t /* slide */) {}
  // Sinks: the run is over. All slides go to one instance of a class that overrides it; of any other each open slide has one.
  virtual void finish(call &) {}
};

// An open slide of a slide reader. A class R of it has `static int32_t sniff(std::string_view path, const uint8_t *, size_t)` too, and
// a constructor R(std::string_view path, weir::call &).
class reader {
 public:
  virtual ~reader() = default;
  // Lives as long as the slide.
  virtual const weir_facts &info(call &) = 0;
  virtual void read_region(call &, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) = 0;
  virtual void picture(call &, uint32_t, uint8_t *, size_t) { throw error("this reader has no pictures", WEIR_E_UNSUPPORTED); }
};

// What a source says of a slide. Texts may be empty; numbers that nobody knows are 0.
struct slide_info {
  std::string id, path, patient, label, split;
  int64_t width = 0, height = 0;
  double mpp_x = 0, mpp_y = 0;
  uint64_t tiles = 0;
  double tile_footprint = 0, tile_mpp = 0;
  uint32_t tile_px = 0;
};

// A slide that a source opened.
class open_slide {
 public:
  virtual ~open_slide() = default;
  // Returns at once: WEIR_OK with a step, WEIR_IDLE, or WEIR_END. A failed step throws nothing: it calls call.fail() first.
  virtual weir_status next(call &, weir_step &out) = 0;
  virtual void read(call &, const weir_row &, void *into, size_t len) = 0;
};

// A source. slide_key is for call.host().wake(), which hosts of 1.0 have no need of: they ask again by themselves.
class source {
 public:
  virtual ~source() = default;
  // False when there is no slide number i.
  virtual bool slide(call &, uint64_t i, slide_info &out) = 0;
  virtual std::unique_ptr<open_slide> open(call &, uint64_t i, void *slide_key, slide_info &out) = 0;
  // Reserved, as of work.
  virtual int64_t size(uint32_t /* port */, std::string_view /* symbol */) { return -1; }
};

namespace border {

// Runs the body: what it throws becomes a message and a status. A body that returns a status returns it.
template <class F>
weir_status guard(const weir_host &host, weir_call *raw, F &&body) noexcept {
  const auto refuse = [&](const weir_error &error, weir_status status) {
    host.fail(raw, &error);
    return status;
  };
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return WEIR_OK;
    } else {
      return body();
    }
  } catch (const error &it) {
    // What was thrown is a failure, whatever number it carries: WEIR_OK would lose the rows without a word.
    return refuse(it.raw(), it.status() < 0 ? it.status() : WEIR_E_FAIL);
  } catch (const std::bad_alloc &) {
    return refuse({str("out of memory"), {}, {}}, WEIR_E_MEMORY);
  } catch (const std::exception &it) {
    return refuse({str(it.what()), {}, {}}, WEIR_E_FAIL);
  } catch (...) {
    return refuse({str("an exception without a message"), {}, {}}, WEIR_E_FAIL);
  }
}

// What the host keeps of an instance.
template <class T>
struct instance {
  const weir_host &host;
  T body;
};

template <class S>
struct stage_of {
  using it = instance<S>;
  static it &of(void *self) noexcept { return *static_cast<it *>(self); }

  static weir_status create(const weir_host *host, weir_call *raw, const weir_value *given, uint32_t n, void **self) noexcept {
    return guard(*host, raw, [&] {
      call at(*host, raw);
      *self = new it{*host, S(values(given, n), at)};
    });
  }
  static void destroy(void *self) noexcept { delete static_cast<it *>(self); }
  static weir_status resolve(void *self, weir_call *raw, uint32_t port, const char *symbol, int64_t *size) noexcept {
    return guard(of(self).host, raw, [&] {
      *size = of(self).body.size(port, symbol);
      if (*size < 0) throw error("the stage does not know the size `" + std::string(symbol) + "`");
    });
  }
  static weir_status process(void *self, weir_call *raw, uint32_t port, const weir_batch *rows) noexcept {
    return guard(of(self).host, raw, [&] {
      call at(of(self).host, raw, rows);
      of(self).body.process(at, port, batch(*rows));
    });
  }
  static weir_status remove(void *self, weir_call *raw, uint32_t port, const weir_row *rows, uint32_t n) noexcept {
    return guard(of(self).host, raw, [&] {
      call at(of(self).host, raw);
      of(self).body.remove(at, port, rows, n);
    });
  }
  static weir_status complete_slide(void *self, weir_call *raw, const weir_slide *slide, uint32_t rev, uint32_t end) noexcept {
    return guard(of(self).host, raw, [&] {
      call at(of(self).host, raw);
      of(self).body.complete_slide(at, *slide, rev, end);
    });
  }
  static void close_slide(void *self, uint64_t slide) noexcept { of(self).body.close_slide(slide); }
  static weir_status finish(void *self, weir_call *raw) noexcept {
    return guard(of(self).host, raw, [&] {
      call at(of(self).host, raw);
      of(self).body.finish(at);
    });
  }
};

// Whether S has something to do at the end of the run: where it does not override finish(), that is collect's.
template <class S, class = void>
struct finishes : std::true_type {};
template <class S>
struct finishes<S, std::enable_if_t<std::is_same_v<decltype(&S::finish), void (collect::*)(call &)>>> : std::false_type {};

template <class R>
struct reader_of {
  using it = instance<R>;
  static it &of(void *handle) noexcept { return *static_cast<it *>(handle); }

  static int32_t sniff(weir_str path, const uint8_t *head, size_t len) noexcept {
    try {
      return R::sniff(view(path), head, len);
    } catch (...) {
      return 0;
    }
  }
  static weir_status open(const weir_host *host, weir_call *raw, weir_str path, void **handle) noexcept {
    return guard(*host, raw, [&] {
      call at(*host, raw);
      *handle = new it{*host, R(view(path), at)};
    });
  }
  static weir_status info(void *handle, weir_call *raw, const weir_facts **out) noexcept {
    return guard(of(handle).host, raw, [&] {
      call at(of(handle).host, raw);
      *out = &of(handle).body.info(at);
    });
  }
  static weir_status read_region(void *handle, weir_call *raw, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height,
                                 uint8_t *into, size_t pitch) noexcept {
    return guard(of(handle).host, raw, [&] {
      call at(of(handle).host, raw);
      of(handle).body.read_region(at, level, x, y, width, height, into, pitch);
    });
  }
  static weir_status picture(void *handle, weir_call *raw, uint32_t i, uint8_t *into, size_t pitch) noexcept {
    return guard(of(handle).host, raw, [&] {
      call at(of(handle).host, raw);
      of(handle).body.picture(at, i, into, pitch);
    });
  }
  static void close(void *handle) noexcept { delete static_cast<it *>(handle); }
};

template <class S>
struct source_of {
  struct it {
    const weir_host &host;
    S body;
    slide_info said;
  };
  // What is said of a slide lives as long as the slide.
  struct opened {
    const weir_host &host;
    slide_info said;
    std::unique_ptr<open_slide> body;
  };
  static it &of(void *self) noexcept { return *static_cast<it *>(self); }
  static opened &on(void *slide) noexcept { return *static_cast<opened *>(slide); }

  static void write(const slide_info &said, weir_slide *out) noexcept {
    out->id = str(said.id);
    out->path = str(said.path);
    out->patient = str(said.patient);
    out->label = str(said.label);
    out->split = str(said.split);
    out->width = said.width;
    out->height = said.height;
    out->mpp_x = said.mpp_x;
    out->mpp_y = said.mpp_y;
    out->tiles = said.tiles;
    out->tile_footprint = said.tile_footprint;
    out->tile_mpp = said.tile_mpp;
    out->tile_px = said.tile_px;
  }
  static weir_status create(const weir_host *host, weir_call *raw, const weir_value *given, uint32_t n, void **self) noexcept {
    return guard(*host, raw, [&] {
      call at(*host, raw);
      *self = new it{*host, S(values(given, n), at), {}};
    });
  }
  static void destroy(void *self) noexcept { delete static_cast<it *>(self); }
  static weir_status resolve(void *self, weir_call *raw, uint32_t port, const char *symbol, int64_t *size) noexcept {
    return guard(of(self).host, raw, [&] {
      *size = of(self).body.size(port, symbol);
      if (*size < 0) throw error("the stage does not know the size `" + std::string(symbol) + "`");
    });
  }
  static weir_status slide(void *self, weir_call *raw, uint64_t i, weir_slide *out) noexcept {
    return guard(of(self).host, raw, [&]() -> weir_status {
      call at(of(self).host, raw);
      of(self).said = slide_info{};
      if (!of(self).body.slide(at, i, of(self).said)) return WEIR_END;
      write(of(self).said, out);
      return WEIR_OK;
    });
  }
  static weir_status open(void *self, weir_call *raw, uint64_t i, void *slide_key, weir_slide *out, void **slide) noexcept {
    return guard(of(self).host, raw, [&] {
      call at(of(self).host, raw);
      auto it = std::make_unique<opened>(opened{of(self).host, {}, nullptr});
      it->body = of(self).body.open(at, i, slide_key, it->said);
      write(it->said, out);
      *slide = it.release();
    });
  }
  static weir_status next(void *slide, weir_call *raw, weir_step *out) noexcept {
    return guard(on(slide).host, raw, [&]() -> weir_status {
      call at(on(slide).host, raw);
      return on(slide).body->next(at, *out);
    });
  }
  static weir_status read(void *slide, weir_call *raw, const weir_row *row, void *into, size_t len) noexcept {
    return guard(on(slide).host, raw, [&] {
      call at(on(slide).host, raw);
      on(slide).body->read(at, *row, into, len);
    });
  }
  static void close(void *slide) noexcept { delete static_cast<opened *>(slide); }
};

}  // namespace border

// The table of a stage: work is a map or a filter, collect a reduce or a sink. `batch_only`: a reduce that takes no withdrawals.
template <class S>
constexpr weir_stage stage(const char *id, uint32_t flags = 0, bool batch_only = false) noexcept {
  constexpr bool is_source = std::is_base_of_v<source, S>;
  static_assert(is_source || std::is_base_of_v<work, S>, "a stage derives from weir::work, weir::collect or weir::source");
  using of = std::conditional_t<is_source, border::source_of<S>, border::stage_of<S>>;
  weir_stage table{};
  table.struct_size = sizeof(weir_stage);
  table.flags = flags;
  table.id = id;
  table.create = of::create;
  table.destroy = of::destroy;
  table.resolve = of::resolve;
  if constexpr (is_source) {
    table.slide = of::slide;
    table.open = of::open;
    table.next = of::next;
    table.read = of::read;
    table.close = of::close;
  } else {
    table.process = of::process;
  }
  if constexpr (std::is_base_of_v<collect, S>) {
    if (!batch_only) table.remove = of::remove;
    table.complete_slide = of::complete_slide;
    table.close_slide = of::close_slide;
    if constexpr (border::finishes<S>::value) table.finish = of::finish;
  }
  return table;
}

// The table of a slide reader.
template <class R>
constexpr weir_reader slides(const char *id, uint32_t flags = 0) noexcept {
  static_assert(std::is_base_of_v<reader, R>, "a slide reader derives from weir::reader");
  using of = border::reader_of<R>;
  weir_reader table{};
  table.struct_size = sizeof(weir_reader);
  table.flags = flags;
  table.id = id;
  table.sniff = of::sniff;
  table.open = of::open;
  table.info = of::info;
  table.read_region = of::read_region;
  table.picture = of::picture;
  table.close = of::close;
  return table;
}

namespace border {

// What a library exports, of its stages and readers in the order in which they are named. It never moves: its tables point into it.
template <size_t N>
class whole {
 public:
  template <class... P>
  explicit whole(const char *manifest, const P &...parts) noexcept {
    table_.struct_size = sizeof table_;
    table_.abi_minor = WEIR_ABI_MINOR;
    table_.manifest = manifest;
    table_.stages = stage_at_;
    table_.readers = reader_at_;
    (add(parts), ...);
  }
  whole(const whole &) = delete;
  whole &operator=(const whole &) = delete;
  const weir_plugin *table() const noexcept { return &table_; }

 private:
  void add(const weir_stage &stage) noexcept {
    stages_[table_.n_stages] = stage;
    stage_at_[table_.n_stages] = &stages_[table_.n_stages];
    table_.n_stages++;
  }
  void add(const weir_reader &reader) noexcept {
    readers_[table_.n_readers] = reader;
    reader_at_[table_.n_readers] = &readers_[table_.n_readers];
    table_.n_readers++;
  }

  weir_stage stages_[N]{};
  weir_reader readers_[N]{};
  const weir_stage *stage_at_[N]{};
  const weir_reader *reader_at_[N]{};
  weir_plugin table_{}; /* by name: it grows at its end */
};
template <class... P>
whole(const char *, const P &...) -> whole<sizeof...(P)>;

}  // namespace border

}  // namespace weir

// The one symbol, for the stages and slide readers that stand there; after WEIR_MANIFEST. What also has extensions writes it by hand.
#define WEIR_PLUGIN(...)                                                                           \
  extern "C" weir_status weir_plugin_v1(const weir_host *, weir_call *, const weir_plugin **out) { \
    static const weir::border::whole plugin(weir_manifest, __VA_ARGS__);                           \
    *out = plugin.table();                                                                         \
    return WEIR_OK;                                                                                \
  }
#endif
