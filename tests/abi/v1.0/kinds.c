/* A plugin of every kind, as it was built for weir 1.0: this file and the header beside it do not change any more. */
#include "weir_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef NEEDS
#define NEEDS "1.0"
#endif
#define TILES(name) "{\"name\":\"" name "\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\"}"
#define FEATURES "{\"name\":\"features\",\"kind\":\"features\",\"shape\":[3]}"
#define BAG "{\"name\":\"bag\",\"kind\":\"bag\",\"shape\":[3]}"

WEIR_MANIFEST(
    "{\"weir-abi\":\"" NEEDS "\",\"name\":\"old\",\"version\":\"1.0.0\",\"summary\":\"A plugin of every kind\",\"stages\":["
    "{\"id\":\"old.grid\",\"summary\":\"Made-up slides\",\"rows\":\"source\",\"params\":["
    "{\"name\":\"slides\",\"type\":\"int\",\"default\":2,\"min\":0,\"max\":9,\"doc\":\"How many\"}],"
    "\"out\":[{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[16,16,3],\"mpp\":0.5}]},"
    "{\"id\":\"old.invert\",\"summary\":\"Turns light to dark\",\"rows\":\"map\",\"in\":[" TILES("tiles") "],\"out\":[" TILES("tiles") "]},"
    "{\"id\":\"old.dark\",\"summary\":\"Leaves dark tiles out\",\"rows\":\"filter\",\"concurrency\":\"parallel\",\"params\":["
    "{\"name\":\"least\",\"type\":\"float\",\"default\":8.0,\"doc\":\"Mean grey level of a tile that stays\"}],"
    "\"in\":[" TILES("tiles") "],\"out\":[" TILES("tiles") "]},"
    "{\"id\":\"old.mean\",\"summary\":\"The mean colour\",\"rows\":\"map\",\"in\":[" TILES("tiles") "],\"out\":[" FEATURES "]},"
    "{\"id\":\"old.sum\",\"summary\":\"The sum of a slide's features\",\"rows\":\"reduce\",\"in\":[" FEATURES "],\"out\":[" BAG "]},"
    "{\"id\":\"old.lines\",\"summary\":\"A line a slide\",\"rows\":\"sink\",\"in\":[" BAG "]}],"
    "\"readers\":[{\"id\":\"old\",\"summary\":\"Slides of one colour\"}]}");

/* Loading is running: tests look for this line. */
__attribute__((constructor)) static void loaded(void) { fputs("old is loaded\n", stderr); }

static const weir_host *host;
static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }
static weir_status no(weir_call *call, const char *what) {
  const weir_error error = {text(what), text(""), text("")};
  host->fail(call, &error);
  return WEIR_E_FAIL;
}

/* What all stages keep; each uses its part. */
enum { SLIDES = 16, SIDE = 16, ACROSS = 4, DOWN = 3, TILE = SIDE * SIDE * 3 };
typedef struct {
  weir_value first; /* of the parameters */
  double sums[SLIDES][3];
  uint64_t members[SLIDES];
  char lines[SLIDES][128];
} stage;

static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  stage *it = calloc(1, sizeof *it);
  (void)call;
  if (!it) return WEIR_E_MEMORY;
  host = h;
  if (n) it->first = values[0];
  *self = it;
  return WEIR_OK;
}
static void destroy(void *self) { free(self); }

/* ---- source: pixels of slide s, tile t are 20 s + t + 1 ---- */
typedef struct { uint64_t number, next; } grid;
static const char *const IDS[] = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight"};

static weir_status slide(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  (void)call;
  if ((int64_t)i >= ((stage *)self)->first.i) return WEIR_END;
  out->id = text(IDS[i]);
  out->path = text(IDS[i]);
  return WEIR_OK;
}
static weir_status open_grid(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **at) {
  grid *it = calloc(1, sizeof *it);
  (void)self, (void)call, (void)key;
  if (!it) return WEIR_E_MEMORY;
  it->number = i;
  out->width = ACROSS * SIDE, out->height = DOWN * SIDE;
  out->mpp_x = out->mpp_y = out->tile_mpp = 0.5;
  out->tile_px = SIDE, out->tile_footprint = SIDE, out->tiles = ACROSS * DOWN;
  *at = it;
  return WEIR_OK;
}
static weir_status next(void *at, weir_call *call, weir_step *out) {
  grid *it = at;
  (void)call;
  if (it->next == ACROSS * DOWN) return WEIR_END;
  out->kind = WEIR_STEP_TILE;
  out->x = (int64_t)(it->next % ACROSS) * SIDE, out->y = (int64_t)(it->next / ACROSS) * SIDE;
  out->width = out->height = SIDE;
  it->next++;
  return WEIR_OK;
}
static weir_status read_tile(void *at, weir_call *call, const weir_row *row, void *into, size_t len) {
  const grid *it = at;
  if (len != TILE) return no(call, "another size than the manifest's");
  memset(into, (int)(20 * it->number + (uint64_t)(row->y / SIDE * ACROSS + row->x / SIDE) + 1), len);
  return WEIR_OK;
}
static void close_grid(void *at) { free(at); }

/* ---- maps and a filter ---- */
static weir_status invert(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  weir_batch *out = host->batch_edit(call, 0);
  (void)self, (void)port;
  if (!out) return no(call, "no batch");
  for (uint32_t i = 0; i < in->n_rows; i++) {
    uint8_t *pixels = out->columns[0].rows[i];
    const size_t n = (size_t)(out->columns[0].shape[0] * out->columns[0].shape[1] * 3);
    for (size_t k = 0; k < n; k++) pixels[k] = (uint8_t)(255 - pixels[k]);
  }
  return host->emit(call, 0, out);
}
static void mean(const weir_batch *in, uint32_t row, double of[3]) {
  const uint8_t *pixels = in->columns[0].rows[row];
  const size_t n = (size_t)(in->columns[0].shape[0] * in->columns[0].shape[1]);
  of[0] = of[1] = of[2] = 0;
  for (size_t k = 0; k < 3 * n; k++) of[k % 3] += pixels[k];
  for (int c = 0; c < 3; c++) of[c] /= (double)n;
}
static weir_status dark(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    double of[3];
    mean(in, i, of);
    const weir_status said = of[0] < ((stage *)self)->first.f ? host->skip(call, i, text("dark")) : host->pass(call, 0, &i, 1);
    if (said != WEIR_OK) return WEIR_E_FAIL;
  }
  return WEIR_OK;
}
static weir_status means(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  uint32_t *all = malloc(in->n_rows * sizeof *all);
  (void)self, (void)port;
  if (!all) return WEIR_E_MEMORY;
  for (uint32_t i = 0; i < in->n_rows; i++) all[i] = i;
  weir_batch *out = host->batch_new(call, 0, in->n_rows, all);
  free(all);
  if (!out) return no(call, "no batch");
  for (uint32_t i = 0; i < in->n_rows; i++) {
    double of[3];
    mean(in, i, of);
    for (int c = 0; c < 3; c++) ((float *)out->columns[0].rows[i])[c] = (float)of[c];
  }
  return host->emit(call, 0, out);
}

/* ---- reduce ---- */
static weir_status add(stage *it, const weir_row *row, const float *of, double sign) {
  const uint64_t s = row->key.slide % SLIDES;
  for (int c = 0; c < 3; c++) it->sums[s][c] += sign * of[c];
  it->members[s] += sign > 0 ? 1 : UINT64_MAX;
  return WEIR_OK;
}
static weir_status take(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  (void)call, (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) add(self, &in->rows[i], in->columns[0].rows[i], 1);
  return WEIR_OK;
}
static weir_status forget(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)self, (void)port, (void)rows;
  return n ? no(call, "nothing is withdrawn in this test") : WEIR_OK;
}
static weir_status sum(void *self, weir_call *call, const weir_slide *of, uint32_t rev, uint32_t end) {
  stage *it = self;
  const uint64_t s = of->number % SLIDES, whole = WEIR_TILE_SLIDE;
  (void)rev, (void)end;
  weir_batch *out = host->batch_for(call, 0, of->number, 1, &whole);
  if (!out) return no(call, "no batch");
  for (int c = 0; c < 3; c++) ((float *)out->columns[0].rows[0])[c] = (float)it->sums[s][c];
  *(float *)out->columns[1].rows[0] = *(float *)out->columns[2].rows[0] = 0;
  *(uint64_t *)out->columns[3].rows[0] = it->members[s];
  *(uint32_t *)out->columns[4].rows[0] = 0;
  return host->emit(call, 0, out);
}

/* ---- sink ---- */
static weir_status line(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  (void)call, (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const weir_slide *of = in->slides[in->rows[i].slide];
    const float *pooled = in->columns[0].rows[i];
    snprintf(((stage *)self)->lines[of->number % SLIDES], 128, "%.*s %llu %.0f %.0f %.0f\n", (int)of->id.len, of->id.ptr,
             (unsigned long long)*(uint64_t *)in->columns[3].rows[i], pooled[0], pooled[1], pooled[2]);
  }
  return WEIR_OK;
}
static weir_status seen(void *self, weir_call *call, const weir_slide *of, uint32_t rev, uint32_t end) {
  (void)self, (void)call, (void)of, (void)rev, (void)end;
  return WEIR_OK;
}
static weir_status finish(void *self, weir_call *call) {
  char path[4096];
  const weir_str folder = host->folder(call);
  snprintf(path, sizeof path, "%.*s/lines.txt", (int)folder.len, folder.ptr);
  FILE *file = fopen(path, "w");
  if (!file) return no(call, "lines.txt cannot be written");
  for (int s = 0; s < SLIDES; s++) fputs(((stage *)self)->lines[s], file);
  return fclose(file) ? no(call, "lines.txt cannot be written") : WEIR_OK;
}

/* ---- reader: "OLD1 width height level", all pixels of that grey level ---- */
typedef struct { int64_t width, height; int level; weir_level levels[1]; weir_facts facts; } flat;

static int32_t sniff(weir_str path, const uint8_t *head, size_t len) {
  (void)path;
  return len >= 4 && !memcmp(head, "OLD1", 4) ? 100 : 0;
}
static weir_status open_flat(const weir_host *h, weir_call *call, weir_str path, void **handle) {
  char name[4096] = {0};
  long long width, height;
  host = h;
  if (path.len >= sizeof name) return no(call, "the path is too long");
  memcpy(name, path.ptr, path.len);
  FILE *file = fopen(name, "r");
  flat *it = calloc(1, sizeof *it);
  if (!file || !it || fscanf(file, "OLD1 %lld %lld %d", &width, &height, &it->level) != 3) {
    if (file) fclose(file);
    free(it);
    return no(call, "it is no slide of one colour");
  }
  fclose(file);
  it->levels[0] = (weir_level){.width = width, .height = height, .downsample = 1};
  it->facts = (weir_facts){.struct_size = sizeof it->facts, .mpp_origin = WEIR_MPP_VENDOR, .format = text("old"), .vendor = text("old"), .mpp_x = 0.5, .mpp_y = 0.5, .levels = it->levels, .n_levels = 1};
  it->width = width, it->height = height;
  *handle = it;
  return WEIR_OK;
}
static weir_status info(void *handle, weir_call *call, const weir_facts **out) {
  (void)call;
  *out = &((flat *)handle)->facts;
  return WEIR_OK;
}
static weir_status region(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  const flat *it = handle;
  (void)call, (void)level;
  for (uint32_t row = 0; row < height; row++)
    for (uint32_t column = 0; column < width; column++) {
      const int64_t px = x + column, py = y + row;
      const int inside = px >= 0 && py >= 0 && px < it->width && py < it->height;
      memset(into + row * pitch + 3 * column, inside ? it->level : 255, 3);
    }
  return WEIR_OK;
}
static void close_flat(void *handle) { free(handle); }

#define STAGE(id_) .struct_size = sizeof(weir_stage), .id = id_, .create = create, .destroy = destroy
static const weir_stage GRID = {STAGE("old.grid"), .slide = slide, .open = open_grid, .next = next, .read = read_tile, .close = close_grid};
static const weir_stage INVERT = {STAGE("old.invert"), .process = invert};
static const weir_stage DARK = {STAGE("old.dark"), .flags = WEIR_STAGE_PARALLEL | WEIR_STAGE_DETERMINISTIC, .process = dark};
static const weir_stage MEAN = {STAGE("old.mean"), .process = means};
static const weir_stage SUM = {STAGE("old.sum"), .process = take, .remove = forget, .complete_slide = sum};
static const weir_stage LINES = {STAGE("old.lines"), .process = line, .remove = forget, .complete_slide = seen, .finish = finish};
static const weir_stage *const STAGES[] = {&GRID, &INVERT, &DARK, &MEAN, &SUM, &LINES};
static const weir_reader FLAT = {.struct_size = sizeof FLAT, .flags = WEIR_READER_PARALLEL, .id = "old", .sniff = sniff, .open = open_flat, .info = info, .read_region = region, .close = close_flat};
static const weir_reader *const READERS[] = {&FLAT};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 6, .readers = READERS, .n_readers = 1};

weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  (void)call;
  host = h;
  if (!WEIR_HAS(weir_host, h, folder)) return WEIR_E_FAIL;
  *out = &PLUGIN;
  return WEIR_OK;
}
