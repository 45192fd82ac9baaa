/* What kinds.c does not use of the ABI, as it was built for weir 1.0: this file does not change any more either. */
#include "weir_plugin.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TILES "{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3]}"
#define SCORES "{\"name\":\"scores\",\"kind\":\"scores\",\"shape\":[\"height\",\"width\",2]}"
#define PARAM(name, type, more) "{\"name\":\"" name "\",\"type\":\"" type "\",\"doc\":\"One\"" more "}"

WEIR_MANIFEST(
    "{\"weir-abi\":\"1.0\",\"name\":\"more\",\"version\":\"1.0.0\",\"summary\":\"The rest of the ABI\",\"stages\":["
    "{\"id\":\"more.later\",\"summary\":\"Scores from a thread\",\"rows\":\"map\",\"concurrency\":\"parallel\",\"in\":[" TILES "],\"out\":[" SCORES "]},"
    "{\"id\":\"more.notes\",\"summary\":\"Picks and notes\",\"rows\":\"map\",\"concurrency\":\"per-worker\",\"params\":["
    PARAM("text", "string", ",\"default\":\"so\"") "," PARAM("file", "path", "") "," PARAM("list", "strings", ",\"default\":[]") ","
    PARAM("way", "choice", ",\"values\":[\"up\",\"down\"],\"default\":\"up\"") "," PARAM("room", "bytes", ",\"default\":\"1KiB\"") ","
    PARAM("wait", "duration", ",\"default\":\"2ms\"") "," PARAM("on", "bool", ",\"default\":false") "],"
    "\"in\":[" TILES "],\"out\":[{\"name\":\"picks\",\"kind\":\"picks\"},{\"name\":\"notes\",\"kind\":\"table\"}]},"
    "{\"id\":\"more.weigh\",\"summary\":\"A prediction and its shares\",\"rows\":\"reduce\",\"in\":[" SCORES "],\"out\":["
    "{\"name\":\"shares\",\"kind\":\"attention\"},{\"name\":\"says\",\"kind\":\"predictions\",\"shape\":[2]},{\"name\":\"notes\",\"kind\":\"table\"}]},"
    "{\"id\":\"more.live\",\"summary\":\"Steps of every kind\",\"rows\":\"source\",\"out\":[{\"name\":\"features\",\"kind\":\"features\",\"shape\":[2]}]}],"
    "\"readers\":[{\"id\":\"more\",\"summary\":\"Slides with a label\"}]}");

static const weir_host *host;
static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }

/* The host is all that a map keeps. */
static weir_status begin(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call, (void)values, (void)n;
  *self = (void *)h;
  return WEIR_OK;
}
static void end(void *self) { (void)self; }

/* ---- a map that is kept: a tile whose first value is 0 fails, others score it ---- */
typedef struct { weir_call *call; const weir_batch *in; } kept;

static void *work(void *of) {
  kept *it = of;
  uint32_t *rows = malloc((it->in->n_rows + 1) * sizeof *rows), n = 0;
  const weir_error dark = {text("it is dark"), text(""), text("light it")};
  weir_status said = rows ? WEIR_OK : WEIR_E_MEMORY;
  if (host->cancelled(it->call)) said = WEIR_E_CANCELLED;
  for (uint32_t i = 0; said == WEIR_OK && i < it->in->n_rows; i++) {
    if (*(const uint8_t *)it->in->columns[0].rows[i]) rows[n++] = i;
    else said = host->fail_row(it->call, i, &dark);
  }
  weir_batch *out = said == WEIR_OK ? host->batch_new(it->call, 0, n, rows) : NULL;
  if (out) {
    for (uint32_t i = 0; i < n; i++) {
      const float first = *(const uint8_t *)it->in->columns[0].rows[rows[i]];
      float *both = out->columns[1].rows[i];
      *(float *)out->columns[0].rows[i] = first;
      both[0] = 0.25F, both[1] = 0.75F;
    }
    said = host->emit(it->call, 0, out);
  } else if (said == WEIR_OK) {
    said = WEIR_E_FAIL;
  }
  const weir_metrics_v1 *metrics = host->extension("weir.metrics/1");
  if (metrics) metrics->count(it->call, text("scored"), n);
  host->log(it->call, WEIR_LOG_DEBUG, text("from a thread"));
  host->batch_release(it->in);
  host->complete(it->call, said);
  free(rows);
  free(it);
  return NULL;
}
static weir_status later(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  kept *it = malloc(sizeof *it);
  pthread_t thread;
  (void)self, (void)port;
  if (!it) return WEIR_E_MEMORY;
  *it = (kept){call, in};
  host->batch_retain(in);
  if (pthread_create(&thread, NULL, work, it)) {
    host->batch_release(in);
    free(it);
    return WEIR_E_MEMORY;
  }
  pthread_detach(thread);
  return WEIR_PENDING;
}
static void hurry(void *self) { (void)self; }

/* ---- parameters of every type, picks and a table ---- */
typedef struct { char line[512]; } notes;

static weir_status begin_notes(const weir_host *h, weir_call *call, const weir_value *v, uint32_t n, void **self) {
  notes *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  if (n != 7 || v[0].kind != WEIR_STRING || v[2].kind != WEIR_LIST || v[3].kind != WEIR_INT || v[4].kind != WEIR_INT ||
      v[5].kind != WEIR_INT || v[6].kind != WEIR_BOOL || (v[1].kind != WEIR_STRING && v[1].kind != WEIR_UNSET)) {
    free(it);
    return WEIR_E_PARAM;
  }
  if (v[4].i > 1 << 20) {
    const weir_error error = {text("that is too much"), text("room"), text("take less")};
    h->fail(call, &error);
    free(it);
    return WEIR_E_PARAM;
  }
  snprintf(it->line, sizeof it->line, "%.*s|%.*s|%u:%.*s|%lld:%.*s|%lld|%lld|%lld", (int)v[0].s.len, v[0].s.ptr, (int)v[1].s.len, v[1].s.ptr,
           v[2].n, v[2].n ? (int)v[2].items[0].s.len : 0, v[2].n ? v[2].items[0].s.ptr : "", (long long)v[3].i, (int)v[3].s.len,
           v[3].s.ptr, (long long)v[4].i, (long long)v[5].i, (long long)v[6].i);
  *self = it;
  return WEIR_OK;
}
static void end_notes(void *self) { free(self); }
static weir_status note(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  const notes *it = self;
  (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    weir_batch *out = host->batch_new(call, 0, 1, &i);
    if (!out) return WEIR_E_FAIL;
    *(float *)out->columns[0].rows[0] = (float)i;
    if (host->emit(call, 0, out) != WEIR_OK || host->table(call, 1, i, it->line, strlen(it->line)) != WEIR_OK) return WEIR_E_FAIL;
  }
  return WEIR_OK;
}

/* ---- a reduce that takes removals ---- */
enum { MOST = 64 };
typedef struct { weir_key keys[MOST]; float scores[MOST]; uint32_t n; } weigh;

static weir_status begin_weigh(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)h, (void)call, (void)values, (void)n;
  return (*self = calloc(1, sizeof(weigh))) ? WEIR_OK : WEIR_E_MEMORY;
}
static void end_weigh(void *self) { free(self); }
static void drop(weigh *it, uint64_t slide, const uint64_t *tile) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < it->n; i++) {
    if (it->keys[i].slide == slide && (!tile || it->keys[i].tile == *tile)) continue;
    it->keys[n] = it->keys[i], it->scores[n++] = it->scores[i];
  }
  it->n = n;
}
static weir_status take(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  weigh *it = self;
  (void)call, (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    drop(it, in->rows[i].key.slide, &in->rows[i].key.tile);
    if (it->n == MOST) return WEIR_E_MEMORY;
    it->keys[it->n] = in->rows[i].key, it->scores[it->n++] = *(const float *)in->columns[0].rows[i];
  }
  return WEIR_OK;
}
static weir_status forget(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)call, (void)port;
  for (uint32_t i = 0; i < n; i++) drop(self, rows[i].key.slide, &rows[i].key.tile);
  return WEIR_OK;
}
static weir_status weighed(void *self, weir_call *call, const weir_slide *of, uint32_t rev, uint32_t end_) {
  weigh *it = self;
  uint64_t tiles[MOST] = {0}, whole = WEIR_TILE_SLIDE;
  float scores[MOST] = {0}, sum = 0;
  uint32_t n = 0;
  char line[64];
  for (uint32_t i = 0; i < it->n; i++)
    if (it->keys[i].slide == of->number) tiles[n] = it->keys[i].tile, sum += scores[n++] = it->scores[i];
  weir_batch *shares = host->batch_for(call, 0, of->number, n, tiles), *says = host->batch_for(call, 1, of->number, 1, &whole);
  if (!shares || !says) {
    if (shares) host->batch_release(shares);
    if (says) host->batch_release(says);
    return WEIR_E_FAIL;
  }
  for (uint32_t i = 0; i < n; i++) {
    for (uint32_t c = 0; c < 4; c++) *(float *)shares->columns[c].rows[i] = 0;
    *(float *)shares->columns[1].rows[i] = sum > 0 ? scores[i] / sum : 0;
  }
  float *logits = says->columns[0].rows[0], *chances = says->columns[1].rows[0];
  logits[0] = sum, logits[1] = -sum, chances[0] = 0.5F, chances[1] = 0.5F;
  *(int32_t *)says->columns[2].rows[0] = n ? 0 : -1;
  const int len = snprintf(line, sizeof line, "%u of generation %u, %u", n, rev, end_);
  weir_status said = host->emit(call, 0, shares);
  const weir_status other = host->emit(call, 1, says);
  if (said == WEIR_OK) said = other;
  return said == WEIR_OK ? host->table(call, 2, UINT32_MAX, line, (size_t)len) : said;
}
static void close_weigh(void *self, uint64_t slide) { drop(self, slide, NULL); }

/* ---- a source with every step ---- */
static weir_status slide(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  (void)self, (void)call;
  if (i) return WEIR_END;
  out->id = out->path = text("live");
  return WEIR_OK;
}
static weir_status open_live(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **at) {
  if (key) return WEIR_E_FAIL;
  const weir_status said = slide(self, call, i, out);
  out->width = out->height = 512, out->mpp_x = out->mpp_y = 0.5, out->tile_footprint = 256, out->tiles = 3;
  return (*at = calloc(1, sizeof(int))) ? said : WEIR_E_MEMORY;
}
static weir_status next(void *at, weir_call *call, weir_step *out) {
  static const uint32_t KINDS[] = {WEIR_STEP_TILE, 0, WEIR_STEP_TILE, WEIR_STEP_CLOSE, WEIR_STEP_GONE, WEIR_STEP_FAIL};
  static const int64_t X[] = {0, 0, 256, 0, 0, 512};
  const weir_error torn = {text("torn"), text(""), text("")};
  const int i = (*(int *)at)++;
  if (i == sizeof KINDS / sizeof KINDS[0]) return WEIR_END;
  if (!KINDS[i]) return WEIR_IDLE;
  out->kind = KINDS[i], out->x = X[i], out->width = 2, out->height = 1;
  if (out->kind == WEIR_STEP_FAIL) host->fail(call, &torn);
  return WEIR_OK;
}
static weir_status read_live(void *at, weir_call *call, const weir_row *row, void *into, size_t len) {
  const float values[] = {(float)row->x, 0.5F};
  (void)at, (void)call;
  if (len != sizeof values) return WEIR_E_FAIL;
  memcpy(into, values, len);
  return WEIR_OK;
}
static void close_live(void *at) { free(at); }

/* ---- a reader with a picture, and what a file is to it ---- */
static const weir_level LEVELS[] = {{.width = 4, .height = 4, .downsample = 1}};
static const weir_picture PICTURES[] = {{{"label", 5}, 2, 1}};
static const weir_property PROPERTIES[] = {{{"more.key", 8}, {"value", 5}}};
static const weir_facts FACTS = {.struct_size = sizeof FACTS, .mpp_origin = WEIR_MPP_OBJECTIVE, .format = {"more", 4}, .vendor = {"more", 4},
                                 .mpp_x = 0.5, .mpp_y = 0.5, .levels = LEVELS, .n_levels = 1, .pictures = PICTURES, .n_pictures = 1,
                                 .properties = PROPERTIES, .n_properties = 1};

static int32_t sniff(weir_str path, const uint8_t *head, size_t len) {
  (void)path;
  return len >= 4 && !memcmp(head, "MORE", 4) ? 100 : 0;
}
static weir_status open_more(const weir_host *h, weir_call *call, weir_str path, void **handle) {
  (void)call, (void)path;
  *handle = (void *)h;
  return WEIR_OK;
}
static weir_status info(void *handle, weir_call *call, const weir_facts **out) {
  (void)handle, (void)call;
  *out = &FACTS;
  return WEIR_OK;
}
static weir_status region(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  (void)handle, (void)call, (void)level, (void)x, (void)y;
  for (uint32_t row = 0; row < height; row++) memset(into + row * pitch, 255, 3 * (size_t)width);
  return WEIR_OK;
}
static weir_status picture(void *handle, weir_call *call, uint32_t i, uint8_t *into, size_t pitch) {
  (void)handle, (void)call, (void)pitch;
  if (i) return WEIR_E_UNSUPPORTED;
  memcpy(into, "abcdef", 6);
  return WEIR_OK;
}
static void close_more(void *handle) { (void)handle; }
static weir_status describe(const weir_host *h, weir_call *call, weir_str path) {
  (void)path;
  h->log(call, WEIR_LOG_INFO, text("it is a file"));
  return WEIR_OK;
}
static const weir_describe_v1 DESCRIBE = {.struct_size = sizeof DESCRIBE, .describe = describe};
static const void *extension(const char *id) { return strcmp(id, "weir.describe/1") ? NULL : &DESCRIBE; }

static const weir_stage LATER = {.struct_size = sizeof LATER, .flags = WEIR_STAGE_PARALLEL, .id = "more.later", .create = begin, .destroy = end, .cancel = hurry, .process = later};
static const weir_stage NOTES = {.struct_size = sizeof NOTES, .id = "more.notes", .create = begin_notes, .destroy = end_notes, .process = note};
static const weir_stage WEIGH = {.struct_size = sizeof WEIGH, .id = "more.weigh", .create = begin_weigh, .destroy = end_weigh, .process = take, .remove = forget, .complete_slide = weighed, .close_slide = close_weigh};
static const weir_stage LIVE = {.struct_size = sizeof LIVE, .id = "more.live", .create = begin, .destroy = end, .slide = slide, .open = open_live, .next = next, .read = read_live, .close = close_live};
static const weir_stage *const STAGES[] = {&LATER, &NOTES, &WEIGH, &LIVE};
static const weir_reader MORE = {.struct_size = sizeof MORE, .flags = WEIR_READER_PARALLEL, .id = "more", .sniff = sniff, .open = open_more, .info = info, .read_region = region, .picture = picture, .close = close_more};
static const weir_reader *const READERS[] = {&MORE};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 4, .readers = READERS, .n_readers = 1, .extension = extension};

weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  (void)call;
  host = h;
  *out = &PLUGIN;
  return WEIR_OK;
}
