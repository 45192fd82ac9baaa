/* A plugin with one of everything, each good, but for the one rule that the environment variable WEIR_BAD names: for the tests
 * that show of each check of `weir plugin check` that it can fail. */
#define _GNU_SOURCE
#include "weir_plugin.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TILES "\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\""
#define FEATURES "\"name\":\"features\",\"kind\":\"features\",\"shape\":[3]"
#define FILE_ "\"params\":[{\"name\":\"file\",\"type\":\"path\",\"default\":\"counts.csv\",\"doc\":\"Where to\"}]"
#define LEVEL "\"params\":[{\"name\":\"level\",\"type\":\"int\",\"default\":5,\"min\":0,\"max\":9,\"doc\":\"A number\"}]"
WEIR_MANIFEST(
    "{\"weir-abi\":\"1.0\",\"name\":\"bad\",\"version\":\"0.1.0\",\"summary\":\"Breaks a rule\",\"stages\":["
    "{\"id\":\"bad.map\",\"summary\":\"Inverts tiles\",\"rows\":\"map\",\"concurrency\":\"parallel\",\"in\":[{" TILES "}],\"out\":[{" TILES "}]," LEVEL "},"
    "{\"id\":\"bad.score\",\"summary\":\"Scores tiles\",\"rows\":\"map\",\"in\":[{" TILES "}],\"out\":["
    "{\"name\":\"scores\",\"kind\":\"scores\",\"shape\":[\"height\",\"width\",2],\"mpp\":\"mpp\"}]},"
    "{\"id\":\"bad.weigh\",\"summary\":\"Weighs tiles\",\"rows\":\"reduce\",\"in\":[{" FEATURES "}],\"out\":["
    "{\"name\":\"weights\",\"kind\":\"attention\"},{\"name\":\"sums\",\"kind\":\"table\"}]},"
    "{\"id\":\"bad.write\",\"summary\":\"Counts tiles\",\"rows\":\"sink\",\"in\":[{" FEATURES "}]," FILE_ "},"
    "{\"id\":\"bad.tiles\",\"summary\":\"Gives tiles\",\"rows\":\"source\",\"out\":["
    "{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[8,8,3],\"mpp\":0.5}]}],"
    "\"readers\":[{\"id\":\"bad\",\"summary\":\"Reads glass\",\"extensions\":[\"glass\"]}]}");

static const weir_host *host;
static int is(const char *sin) {
  const char *set = getenv("WEIR_BAD");
  return set && strcmp(set, sin) == 0;
}
static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }
static weir_status fail(weir_call *call, weir_status said, const char *what, const char *param) {
  host->fail(call, &(weir_error){text(what), text(param), text("")});
  return said;
}

/* Memory that is touched and never freed. */
void *volatile leaked;
static void leak(size_t bytes) {
  void *lost = malloc(bytes);
  if (lost) memset(lost, 1, bytes);
  leaked = lost;
}

/* ------------------------------------------------------------------------------------------------------------- stages -- */

typedef struct { uint64_t slide, tile; float first; } held;
typedef struct {
  pid_t thread;
  held rows[8192];
  uint32_t n;
  uint64_t seen;
  char file[4096];
} stage;

/* How many of its calls run at once. */
static atomic_int inside;
static atomic_int broken;

static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  host = h;
  const int64_t level = n > 0 && values[0].kind == WEIR_INT ? values[0].i : -1;
  if (is("defaults") && level == 5) return fail(call, WEIR_E_PARAM, "five is too much", "level");
  if (is("edge") && level == 9) return fail(call, WEIR_E_FAIL, "nine is too much", "");
  if (is("fuzz") && level == 7) return fail(call, WEIR_E_FAIL, "seven is too much", "");
  if (is("mute") && level == 0) return WEIR_E_PARAM;
  if (is("blame") && level == 0) return fail(call, WEIR_E_PARAM, "that is too little", "nonsense");
  stage *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  if (is("instance-leak")) leak(8 << 10);
  it->thread = gettid();
  if (n > 0 && values[0].kind == WEIR_STRING) snprintf(it->file, sizeof it->file, "%.*s", (int)values[0].s.len, values[0].s.ptr);
  *self = it;
  return WEIR_OK;
}
static void destroy(void *self) { free(self); }

/* A process that holds what this one says to its parent; in a group of its own where it is a daemon. */
static void leaves_behind(int daemon) {
  if (fork()) return;
  if (daemon) setsid();
  sleep(30);
  _exit(0);
}

static void *completes(void *call) {
  usleep(is("deaf") ? 8000000 : 3000);
  host->complete(call, WEIR_OK);
  if (is("twice")) host->complete(call, WEIR_OK);
  return NULL;
}
static void completes_soon(weir_call *call) {
  pthread_t thread;
  pthread_create(&thread, NULL, completes, call);
  pthread_detach(thread);
}
static void cancel(void *self) { (void)self; }

static weir_status map(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  stage *it = self;
  uint32_t rows[4096];
  (void)port;
  if (in->n_rows > 4096) return fail(call, WEIR_E_FAIL, "too many rows", "");
  if (is("sleeper") || is("sleeper-hangs")) leaves_behind(0);
  if (is("daemon")) leaves_behind(1);
  if (is("sleeper-hangs")) pause();
  if (is("empty-read")) it->seen += *(volatile uint8_t *)in->columns[0].rows[0];
  if (is("empty-fail") && in->n_rows == 0) return fail(call, WEIR_E_FAIL, "there is nothing", "");
  if (is("one-fail") && in->n_rows == 1) return fail(call, WEIR_E_FAIL, "one is too little", "");
  if (is("many-fail") && in->n_rows > 100) return fail(call, WEIR_E_FAIL, "that is too much", "");
  if (is("thread") && gettid() != it->thread) return fail(call, WEIR_E_FAIL, "this is another thread", "");
  if (is("memory") && in->n_rows) leak(64);
  if (is("early")) {
    for (uint32_t i = 0; i < in->n_rows; i++) rows[i] = i;
    host->pass(call, 0, rows, in->n_rows);
    host->complete(call, WEIR_OK);
    return WEIR_OK;
  }
  if (is("never")) return WEIR_PENDING;
  if (is("hangs")) pause();
  if (atomic_load(&broken)) return fail(call, WEIR_E_FAIL, "it is still broken", "");
  uint32_t n = 0;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const uint8_t *from = in->columns[0].rows[i];
    if (from[0] == 0 && from[1] == 0 && from[2] == 0) {
      if (is("mute-row")) { host->fail_row(call, i, &(weir_error){text(""), text(""), text("")}); continue; }
      if (is("mute-call")) return WEIR_E_FAIL;
      if (is("dies")) abort();
      if (is("panics")) return fail(call, WEIR_E_PANIC, "src/lib.rs:1: no light", "");
      if (is("stays-broken")) { atomic_store(&broken, 1); return fail(call, WEIR_E_PANIC, "src/lib.rs:1: no light", ""); }
    }
    if (is("touch")) ((uint8_t *)in->columns[0].rows[i])[0] ^= 1;
    rows[n++] = i;
  }
  if (is("keeps") && in->n_rows) host->batch_retain(in);
  if (is("releases") && in->n_rows) host->batch_release(in);
  if (is("no-rows") && !in->n_rows) { rows[0] = 0; host->skip(call, 0, text("none")); }
  const int others = atomic_fetch_add(&inside, 1);
  weir_batch *out = is("edits") ? host->batch_edit(call, 0) : host->batch_new(call, 0, n, rows);
  if (!out) { atomic_fetch_sub(&inside, 1); return WEIR_E_FAIL; }
  for (uint32_t i = 0; i < n; i++) {
    const uint8_t *from = in->columns[0].rows[rows[i]];
    uint8_t *to = out->columns[0].rows[i];
    const size_t len = (size_t)(in->columns[0].shape[0] * in->columns[0].shape[1] * 3);
    for (size_t k = 0; k < (is("half") ? len / 2 : len); k++) to[k] = (uint8_t)~from[k];
    if (is("order")) to[0] = (uint8_t)in->n_rows;
    if (is("overread")) it->seen += *(volatile const uint8_t *)(from + len);
    if (is("overwrite")) *(volatile uint8_t *)(to + len) = 1;
    if (is("underwrite")) *(volatile uint8_t *)(to - 1) = 1;
    if (is("race") && others) to[0] ^= 1;
  }
  if (is("race")) usleep(200);
  atomic_fetch_sub(&inside, 1);
  if (is("unmade") && n) host->batch_retain(out);
  if (is("emits-twice") && n) { host->emit(call, 0, out); return host->emit(call, 0, out); }
  const weir_status said = host->emit(call, 0, out);
  if (is("pending") || is("twice") || is("deaf")) { completes_soon(call); return WEIR_PENDING; }
  if (is("late") && n) completes_soon(call);
  return said;
}

static weir_status score(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  uint32_t rows[4096], n = 0;
  (void)self, (void)port;
  for (uint32_t i = is("lost"); i < in->n_rows; i++) rows[n++] = i;
  weir_batch *out = host->batch_new(call, 0, n, rows);
  if (!out) return WEIR_E_FAIL;
  for (uint32_t i = 0; i < n; i++) {
    float *score = out->columns[0].rows[i], *p = out->columns[1].rows[i];
    *score = 0.5f;
    p[0] = is("range") ? 7.0f : 0.25f;
    if (!is("less")) p[1] = 0.75f;
    if (is("small-overwrite")) *(volatile float *)(score + 1) = 1;
    if (is("small-underwrite")) *(volatile float *)(score - 1) = 1;
  }
  return host->emit(call, 0, out);
}

/* ---------------------------------------------------------------------------------------------------- reduce and sink -- */

static weir_status add(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  stage *it = self;
  (void)port;
  if (is("gather-empty") && !in->n_rows) return fail(call, WEIR_E_FAIL, "there is nothing", "");
  for (uint32_t i = 0; i < in->n_rows; i++) {
    if (it->n == 8192) return fail(call, WEIR_E_MEMORY, "too many tiles", "");
    it->seen++;
    it->rows[it->n++] = (held){in->rows[i].key.slide, in->rows[i].key.tile, *(float *)in->columns[0].rows[i]};
  }
  return WEIR_OK;
}
static weir_status take(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  stage *it = self;
  (void)call, (void)port;
  if (is("remove-fails")) return WEIR_E_FAIL;
  for (uint32_t r = 0; r < n; r++)
    for (uint32_t i = 0; i < it->n; i++)
      if (it->rows[i].slide == rows[r].key.slide && it->rows[i].tile == rows[r].key.tile) { it->rows[i--] = it->rows[--it->n]; }
  return WEIR_OK;
}
static weir_status weigh(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  stage *it = self;
  uint64_t tiles[8192];
  float weights[8192];
  uint32_t n = 0;
  (void)rev;
  for (uint32_t i = 0; i < it->n; i++)
    if (it->rows[i].slide == slide->number) { weights[n] = it->rows[i].first; tiles[n++] = it->rows[i].tile; }
  if (is("needs-rows") && !n) return fail(call, WEIR_E_FAIL, "a slide without tiles", "");
  if (is("needs-all") && end == WEIR_INCOMPLETE) return fail(call, WEIR_E_FAIL, "not all tiles came", "");
  if (is("counts")) it->seen++;
  weir_batch *out = host->batch_for(call, 0, slide->number, n, tiles);
  if (!out) return WEIR_E_FAIL;
  for (uint32_t i = 0; i < n; i++) {
    float *logit = out->columns[0].rows[i], *weight = out->columns[1].rows[i];
    *logit = weights[i] + (is("adds-up") || is("counts") ? (float)it->seen : 0) + (is("mixes") ? (float)it->n : 0);
    *weight = is("weight") ? 2.0f : 1.0f / (float)n;
    *(float *)out->columns[2].rows[i] = 0;
    if (!is("weigh-less")) *(float *)out->columns[3].rows[i] = 0;
  }
  const weir_status said = host->emit(call, 0, out);
  if (said) return said;
  /* The table is the sum of the numbers, of all slides where they are mixed. */
  float sum = 0;
  for (uint32_t i = 0; i < it->n; i++) sum += it->rows[i].slide == slide->number || is("mixes-tables") ? it->rows[i].first : 0;
  char line[64];
  return host->table(call, 1, UINT32_MAX, line, (size_t)snprintf(line, sizeof line, "sum,%.5f\n", sum));
}
static weir_status wrote(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  const char *const files[] = {((stage *)self)->file, "by-name.csv"};
  (void)slide, (void)rev;
  for (int i = 0; i < 2; i++) {
    FILE *file = fopen(files[i], "w");
    if (!file) return fail(call, WEIR_E_FAIL, "there can be no file", "");
    fputs("written\n", file);
    fclose(file);
  }
  if (is("aborted") && end == WEIR_ABORTED) return fail(call, WEIR_E_FAIL, "the slide failed", "");
  return WEIR_OK;
}
static void forget(void *self, uint64_t slide) {
  stage *it = self;
  if (is("slide-leak")) leak(64);
  if (is("mixes") || is("mixes-tables")) return;
  for (uint32_t i = 0; i < it->n; i++)
    if (it->rows[i].slide == slide) { it->rows[i--] = it->rows[--it->n]; }
}
static weir_status finish(void *self, weir_call *call) {
  stage *it = self;
  if (is("finish") && !it->seen) return fail(call, WEIR_E_FAIL, "there was no slide", "");
  return WEIR_OK;
}

/* ------------------------------------------------------------------------------------------------------------- source -- */

typedef struct { uint64_t i; int at, ended, file; unsigned turn; } opened;
static weir_status listed(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  static char id[16];
  static int asked;
  (void)self, (void)call;
  if (i >= 2) return WEIR_END;
  snprintf(id, sizeof id, "s%d", (int)i + (is("relists") ? 10 * asked++ : 0));
  out->id = text(id);
  out->path = text(is("pathless") ? "" : "none");
  return WEIR_OK;
}
static weir_status opens(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **slide) {
  static unsigned turn;
  opened *it = calloc(1, sizeof *it);
  (void)self, (void)call, (void)key;
  if (!it) return WEIR_E_MEMORY;
  it->i = i;
  it->turn = turn++;
  it->file = is("source-files") ? open("/dev/null", O_RDONLY) : -1;
  out->width = out->height = 64;
  out->mpp_x = out->mpp_y = 0.5;
  out->tiles = is("count") ? 7 : 6;
  *slide = it;
  return WEIR_OK;
}
static weir_status next(void *slide, weir_call *call, weir_step *out) {
  opened *it = slide;
  if (it->at == 6 && (!is("restarts") || !it->ended++)) return WEIR_END;
  if (is("mute-step") && it->at == 3) { it->at++; out->kind = WEIR_STEP_FAIL; return WEIR_OK; }
  (void)call;
  out->kind = WEIR_STEP_TILE;
  out->x = is("outside") && it->at == 5 ? 1000 : 8 * (it->at % 6);
  out->y = 0;
  out->width = out->height = 8;
  it->at++;
  return WEIR_OK;
}
static weir_status fill(void *slide, weir_call *call, const weir_row *row, void *into, size_t len) {
  opened *it = slide;
  (void)call;
  if (row->x > 64 && !is("outside")) return is("mute-read") ? WEIR_E_FAIL : fail(call, WEIR_E_FAIL, "no such tile", "");
  const int others = atomic_fetch_add(&inside, 1);
  memset(into, (int)(row->x + 5 * (int64_t)it->i), len);
  if (is("other-bits")) ((uint8_t *)into)[0] = (uint8_t)it->turn;
  if (is("source-over")) *(volatile uint8_t *)((uint8_t *)into + len) = 1;
  if (is("source-race")) usleep(500);
  if (is("source-race") && others) ((uint8_t *)into)[0] ^= 1;
  atomic_fetch_sub(&inside, 1);
  return WEIR_OK;
}
static weir_status reads(void *slide, weir_call *call, const weir_row *row, void *into, size_t len) {
  return fill(slide, call, row, into, is("short") ? len - 1 : len);
}
static void shut(void *slide) { free(slide); }

/* ------------------------------------------------------------------------------------------------------------- reader -- */

/* "BADGLASS", width and height (u32), then a byte a px of level 0. Level 1 is every other px. */
typedef struct { FILE *file; uint32_t width, height; weir_level levels[2]; weir_property properties[2]; weir_picture picture; weir_facts facts; } glass;

static int32_t sniff(weir_str path, const uint8_t *head, size_t len) {
  struct stat about;
  char name[4096];
  if (is("knows-all")) return 10;
  if (is("too-sure") && len >= 8 && !memcmp(head, "BADGLASS", 8)) return 200;
  if (is("sniff-over")) return *(volatile const uint8_t *)(head + len);
  if (len < 8 || memcmp(head, "BADGLASS", 8)) return 0;
  snprintf(name, sizeof name, "%.*s", (int)path.len, path.ptr);
  if (is("sniff-reads") && stat(name, &about)) return 0;
  return 90;
}
static weir_status open_glass(const weir_host *h, weir_call *call, weir_str path, void **handle) {
  char name[4096], sign[8];
  host = h;
  snprintf(name, sizeof name, "%.*s", (int)path.len, path.ptr);
  FILE *file = fopen(name, "rb");
  if (!file) return is("mute-open") ? WEIR_E_FAIL : fail(call, WEIR_E_FAIL, "it is not there", "");
  glass *it = calloc(1, sizeof *it);
  it->file = file;
  if (fread(sign, 1, 8, file) != 8 || memcmp(sign, "BADGLASS", 8) || fread(&it->width, 4, 2, file) != 2 || it->width > 4096 || it->height > 4096) {
    if (is("opens-noise")) it->width = it->height = 64;
    else {
      if (!is("open-files")) fclose(file);
      free(it);
      return fail(call, WEIR_E_FAIL, "it is no glass", "");
    }
  }
  it->levels[0] = (weir_level){it->width, it->height, 1, 0, 0};
  it->levels[1] = (weir_level){it->width / 2, it->height / 2, is("levels") ? 1 : 2, 0, 0};
  if (is("level-size")) it->levels[1].width = 3;
  it->properties[is("keys")] = (weir_property){text("a"), text("1")};
  it->properties[!is("keys")] = (weir_property){text("b"), text("2")};
  it->picture = (weir_picture){text("label"), 5, 4};
  it->facts = (weir_facts){.struct_size = sizeof it->facts, .mpp_origin = WEIR_MPP_VENDOR, .format = text(is("format") ? "" : "glass"), .vendor = text("nobody"),
                           .mpp_x = is("mpp") ? -1 : 0.5, .mpp_y = 0.5, .levels = it->levels, .pictures = &it->picture, .properties = it->properties,
                           .n_levels = 2, .n_pictures = 1, .n_properties = 2};
  *handle = it;
  return WEIR_OK;
}
static weir_status info(void *handle, weir_call *call, const weir_facts **out) {
  (void)call;
  *out = &((glass *)handle)->facts;
  return WEIR_OK;
}
static weir_status region(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  glass *it = handle;
  const int others = atomic_fetch_add(&inside, 1);
  if (is("reader-race")) usleep(500);
  for (uint32_t row = 0; row < height; row++) {
    uint8_t *to = into + row * pitch;
    for (uint32_t column = 0; column < width; column++) {
      const int64_t px = (x + column) << level, py = (y + row) << level;
      const int within = x + column >= 0 && y + row >= 0 && x + column < it->levels[level].width && y + row < it->levels[level].height;
      int shade = is("black") ? 0 : 255;
      if (within) {
        pthread_mutex_lock(&lock);
        fseek(it->file, 16 + py * it->width + px, SEEK_SET);
        shade = fgetc(it->file);
        pthread_mutex_unlock(&lock);
        if (shade == EOF && !is("invents")) { atomic_fetch_sub(&inside, 1); return fail(call, WEIR_E_FAIL, "the file ends here", ""); }
        if (is("shift")) shade = (int)(column * 3 + row);
      }
      memset(to + 3 * column, shade, 3);
    }
    if (is("unfilled") && row == 3) to[0] = into[1];
    if (is("pitch") && row + 1 < height) memset(to + 3 * width, 1, pitch - 3 * width);
  }
  if (is("spill")) *(volatile uint8_t *)(into + (height - 1) * pitch + 3 * width) = 1;
  if (is("reader-race") && others) into[0] ^= 1;
  atomic_fetch_sub(&inside, 1);
  return WEIR_OK;
}
static weir_status picture(void *handle, weir_call *call, uint32_t i, uint8_t *into, size_t pitch) {
  (void)handle, (void)call, (void)i;
  for (int row = 0; row < 4 - is("picture"); row++) memset(into + (size_t)row * pitch, 9, 15);
  return WEIR_OK;
}
static void close_glass(void *handle) {
  glass *it = handle;
  if (!is("handle-files")) fclose(it->file);
  free(it);
}

/* ------------------------------------------------------------------------------------------------------------- plugin -- */

#define EVERY(name, more) .struct_size = sizeof(weir_stage), .flags = WEIR_STAGE_DETERMINISTIC | (more), .id = name, .create = create, .destroy = destroy
static const weir_stage MAP = {EVERY("bad.map", WEIR_STAGE_PARALLEL), .process = map, .cancel = cancel};
static const weir_stage SCORE = {EVERY("bad.score", 0), .process = score};
static const weir_stage WEIGH = {EVERY("bad.weigh", 0), .process = add, .remove = take, .complete_slide = weigh, .close_slide = forget};
static const weir_stage WRITE = {EVERY("bad.write", 0), .process = add, .remove = take, .complete_slide = wrote, .close_slide = forget, .finish = finish};
static const weir_stage SOURCE = {EVERY("bad.tiles", 0), .slide = listed, .open = opens, .next = next, .read = reads, .close = shut};
static const weir_stage *const STAGES[] = {&MAP, &SCORE, &WEIGH, &WRITE, &SOURCE};
static const weir_reader READER = {.struct_size = sizeof READER, .flags = WEIR_READER_PARALLEL, .id = "bad", .sniff = sniff, .open = open_glass, .info = info, .read_region = region, .picture = picture, .close = close_glass};
static const weir_reader *const READERS[] = {&READER};

static const void *extension(const char *id) { return is("extension") ? id : NULL; }

#define PLUGIN .struct_size = sizeof(weir_plugin), .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 5
static const weir_plugin FIRST = {PLUGIN, .readers = READERS, .n_readers = 1, .extension = extension};
static const weir_plugin OTHER = {PLUGIN};

#ifdef UNDEFINED
void nobody_has_this(void);
void (*volatile needed)(void) = NULL;
static void needs(void) { nobody_has_this(); }
#endif

weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  static int entered;
  host = h;
  if (is("entry-fails")) return fail(call, WEIR_E_FAIL, "not today", "");
#ifdef UNDEFINED
  if (needed) needs();
#endif
  if (entered++) {
    if (is("entry-dies")) abort();
    if (is("entry-refuses")) return fail(call, WEIR_E_FAIL, "once is enough", "");
    if (is("entry-other")) { *out = &OTHER; return WEIR_OK; }
  }
  *out = &FIRST;
  return WEIR_OK;
}
