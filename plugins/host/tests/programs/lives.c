/* A plugin of every kind that lives as hard as the rules allow: it holds on to batches, ends calls late and on other threads, stops
 * early, and does its work when it is destroyed. As its parameter `plant` says, it uses memory that is not its own any more. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "weir_plugin.h"

#define TILES "\"name\": \"tiles\", \"kind\": \"pixels\", \"shape\": [16, 16, 3]"
#define FEATURES "\"name\": \"features\", \"kind\": \"features\", \"shape\": [3]"
#define PLANT "\"params\": [ { \"name\": \"plant\", \"type\": \"string\", \"default\": \"\", \"doc\": \"Which error\" } ]"
WEIR_MANIFEST("{ \"weir-abi\": \"1.0\", \"name\": \"lives\", \"version\": \"0.1.0\", \"summary\": \"For tests\", \"stages\": ["
              "{ \"id\": \"lives.mean\", \"summary\": \"Means of tiles\", \"rows\": \"map\", \"concurrency\": \"parallel\","
              "  \"in\": [ { " TILES " } ], \"out\": [ { " FEATURES " } ], " PLANT " },"
              "{ \"id\": \"lives.double\", \"summary\": \"Doubles features\", \"rows\": \"reduce\","
              "  \"in\": [ { " FEATURES " } ], \"out\": [ { " FEATURES " }, { \"name\": \"count\", \"kind\": \"table\" } ], " PLANT " },"
              "{ \"id\": \"lives.write\", \"summary\": \"Writes at the very end\", \"rows\": \"sink\","
              "  \"in\": [ { " FEATURES " } ], " PLANT " },"
              "{ \"id\": \"lives.tiles\", \"summary\": \"Slides that end in all ways\", \"rows\": \"source\","
              "  \"out\": [ { " TILES ", \"mpp\": 0.5 } ], " PLANT " } ],"
              "\"readers\": [ { \"id\": \"lives\", \"summary\": \"Made up\", \"extensions\": [\"lives\"] } ] }");

static const weir_host *host;

typedef struct {
  char plant[32];
  /* Of the map: a row of an earlier call. */
  const uint8_t *row;
  /* Of what gathers. */
  const weir_batch *kept[64];
  uint32_t n_kept;
  weir_str slide, folder;
  double sum;
} stage;

static int is(const stage *it, const char *plant) { return strcmp(it->plant, plant) == 0; }
static weir_str text(const char *of) { return (weir_str){ of, strlen(of) }; }

static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  stage *it = calloc(1, sizeof *it);
  if (!it || n != 1) return WEIR_E_MEMORY;
  host = h;
  memcpy(it->plant, values[0].s.ptr, values[0].s.len < sizeof it->plant - 1 ? values[0].s.len : sizeof it->plant - 1);
  it->folder = h->folder(call);
  *self = it;
  return WEIR_OK;
}

static void destroy(void *self) {
  stage *it = self;
  for (uint32_t i = 0; i < it->n_kept; i++) host->batch_release(it->kept[i]);
  free(it);
}

/* --------------------------------------------------------------------------------------------------------------- map -- */

static __attribute__((noinline)) uint8_t reads_a_lent_row(const uint8_t *row) { return *(const volatile uint8_t *)row; }
static __attribute__((noinline)) void writes_past_a_row(float *row) { ((volatile float *)row)[3] = 1; }

typedef struct { weir_call *call; const weir_batch *batch; const stage *of; } job;

static weir_status means(const stage *it, weir_call *call, const weir_batch *in) {
  uint32_t rows[64];
  for (uint32_t i = 0; i < in->n_rows; i++) rows[i] = i;
  weir_batch *out = host->batch_new(call, 0, in->n_rows, rows);
  if (!out) return WEIR_E_FAIL;
  /* What is written is read back by way of a second reference. */
  host->batch_retain(out);
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const uint8_t *from = in->columns[0].rows[i];
    float *to = out->columns[0].rows[i];
    for (int c = 0; c < 3; c++) to[c] = from[c];
    if (is(it, "output")) writes_past_a_row(to);
  }
  const weir_status said = host->emit(call, 0, out);
  float sum = 0;
  for (uint32_t i = 0; i < out->n_rows; i++) sum += *(const float *)out->columns[0].rows[i];
  host->batch_release(out);
  return sum < 0 ? WEIR_E_FAIL : said;
}

static void *later(void *of) {
  job *it = of;
  const struct timespec time = { 0, 3000000 };
  nanosleep(&time, NULL);
  const weir_status said = means(it->of, it->call, it->batch);
  const weir_batch *batch = it->batch;
  host->complete(it->call, said);
  /* The call is gone; its batch is not. */
  if (reads_a_lent_row(batch->columns[0].rows[0]) == 255) abort();
  host->batch_release(batch);
  free(it);
  return NULL;
}

static weir_status mean(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  stage *it = self;
  (void)port;
  if (in->n_rows > 64) return WEIR_E_FAIL;
  if (is(it, "lent")) {
    if (it->row && reads_a_lent_row(it->row) == 255) return WEIR_E_FAIL;
    it->row = in->columns[0].rows[0];
  }
  if (!is(it, "late")) return means(it, call, in);
  job *own = malloc(sizeof *own);
  pthread_t thread;
  if (!own) return WEIR_E_MEMORY;
  *own = (job){ call, in, it };
  host->batch_retain(in);
  pthread_create(&thread, NULL, later, own);
  pthread_detach(thread);
  return WEIR_PENDING;
}

/* ---------------------------------------------------------------------------------------------------- reduce and sink -- */

static weir_status keep(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  stage *it = self;
  (void)call, (void)port;
  if (it->n_kept == 64) return WEIR_E_MEMORY;
  host->batch_retain(in);
  it->kept[it->n_kept++] = in;
  return WEIR_OK;
}

static weir_status take(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)self, (void)call, (void)port, (void)rows, (void)n;
  return WEIR_OK;
}

/* Lets go of a slide's batches: they are of one slide each. */
static void let_go(stage *it, uint64_t slide) {
  uint32_t left = 0;
  for (uint32_t i = 0; i < it->n_kept; i++) {
    if (it->kept[i]->rows[0].key.slide == slide) host->batch_release(it->kept[i]);
    else it->kept[left++] = it->kept[i];
  }
  it->n_kept = left;
}

/* Twice the features of every tile, a batch for a batch; and a table, which counts them. */
static weir_status doubles(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  stage *it = self;
  uint64_t tiles[64], n = 0;
  char said[64];
  (void)rev, (void)end;
  for (uint32_t k = 0; k < it->n_kept; k++) {
    const weir_batch *in = it->kept[k];
    if (in->rows[0].key.slide != slide->number || in->n_rows > 64) continue;
    for (uint32_t i = 0; i < in->n_rows; i++) tiles[i] = in->rows[i].key.tile;
    weir_batch *out = host->batch_for(call, 0, slide->number, in->n_rows, tiles);
    if (!out) return WEIR_E_FAIL;
    for (uint32_t i = 0; i < in->n_rows; i++)
      for (int c = 0; c < 3; c++) ((float *)out->columns[0].rows[i])[c] = 2 * ((const float *)in->columns[0].rows[i])[c];
    n += in->n_rows;
    const weir_status emitted = host->emit(call, 0, out);
    if (emitted) return emitted;
  }
  const int len = snprintf(said, sizeof said, "%.*s %d", (int)slide->id.len, slide->id.ptr, (int)n);
  let_go(it, slide->number);
  it->slide = slide->id;
  return host->table(call, 1, UINT32_MAX, said, (size_t)len);
}

static __attribute__((noinline)) size_t reads_a_slides_text(weir_str text) {
  size_t sum = 0;
  for (size_t i = 0; i < text.len; i++) sum += ((const volatile char *)text.ptr)[i];
  return sum;
}

static void forget(void *self, uint64_t slide) {
  let_go(self, slide);
}

static void ends(void *self) {
  stage *it = self;
  if (is(it, "text") && reads_a_slides_text(it->slide) == 0) abort();
  destroy(self);
}

static weir_status adds(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  stage *it = self;
  (void)call, (void)rev, (void)end;
  for (uint32_t k = 0; k < it->n_kept; k++)
    for (uint32_t i = 0; i < it->kept[k]->n_rows; i++)
      if (it->kept[k]->rows[i].key.slide == slide->number) it->sum += *(const float *)it->kept[k]->columns[0].rows[i];
  return WEIR_OK;
}

/* What was taken is still there when nothing else is. */
static void writes_at_the_end(void *self) {
  stage *it = self;
  char path[4096];
  double sum = 0;
  for (uint32_t k = 0; k < it->n_kept; k++)
    for (uint32_t i = 0; i < it->kept[k]->n_rows; i++) sum += *(const float *)it->kept[k]->columns[0].rows[i];
  snprintf(path, sizeof path, "%.*s/lives.txt", (int)it->folder.len, it->folder.ptr);
  FILE *file = fopen(path, "w");
  if (!file) abort();
  fprintf(file, "%g %g", it->sum, sum);
  fclose(file);
  destroy(self);
}

/* ------------------------------------------------------------------------------------------------------------- source -- */

/* Slide `early` ends before all of its tiles came, `torn` by an error, `holes` has a tile that cannot be had and one that cannot be
 * read. */
typedef struct { uint64_t i; int at; char *path; } opened;

static weir_status lists(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  static const char *const IDS[] = { "early", "torn", "holes" };
  (void)self, (void)call;
  if (i >= 3) return WEIR_END;
  out->id = text(IDS[i]);
  out->path = text("none");
  return WEIR_OK;
}

static weir_status opens(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **slide) {
  opened *it = calloc(1, sizeof *it);
  (void)self, (void)call, (void)key;
  if (!it) return WEIR_E_MEMORY;
  it->i = i;
  it->path = malloc(5);
  if (!it->path) return WEIR_E_MEMORY;
  memcpy(it->path, "none", 5);
  out->path = (weir_str){ it->path, 4 };
  out->width = out->height = 64;
  out->mpp_x = out->mpp_y = 0.5;
  out->tiles = 8;
  *slide = it;
  return WEIR_OK;
}

static void fails(weir_call *call, const char *why) {
  char own[64];
  snprintf(own, sizeof own, "%s", why);
  host->fail(call, &(weir_error){ text(own), text(""), text("") });
  memset(own, 0, sizeof own);
}

static weir_status steps(void *slide, weir_call *call, weir_step *out) {
  opened *it = slide;
  if (it->i == 0 && it->at == 3) return WEIR_END;
  if (it->i == 1 && it->at == 2) {
    fails(call, "it is torn");
    return WEIR_E_FAIL;
  }
  if (it->at == 8) return WEIR_END;
  out->kind = it->i == 2 && it->at == 4 ? WEIR_STEP_FAIL : WEIR_STEP_TILE;
  if (out->kind == WEIR_STEP_FAIL) fails(call, "it cannot be had");
  out->x = it->at++ * 16;
  out->y = 0;
  out->width = out->height = 16;
  return WEIR_OK;
}

static weir_status fills(void *slide, weir_call *call, const weir_row *row, void *into, size_t len) {
  const opened *it = slide;
  if (it->i == 2 && row->x == 96) {
    fails(call, "it cannot be read");
    return WEIR_E_FAIL;
  }
  memset(into, (int)row->x + (int)it->i, len);
  return WEIR_OK;
}

static void shuts(void *slide) {
  opened *it = slide;
  free(it->path);
  free(it);
}

/* ------------------------------------------------------------------------------------------------------------- reader -- */

/* 64 x 48 px, damaged at (20, 10): whoever read there must open it again. */
typedef struct { int spoilt; weir_level *levels; weir_picture picture; weir_facts facts; } file;

static int32_t sniff(weir_str path, const uint8_t *head, size_t len) {
  (void)path;
  return len >= 5 && memcmp(head, "LIVES", 5) == 0 ? 100 : 0;
}

static weir_status opens_file(const weir_host *h, weir_call *call, weir_str path, void **handle) {
  file *it = calloc(1, sizeof *it);
  (void)call, (void)path;
  if (!it) return WEIR_E_MEMORY;
  host = h;
  it->levels = malloc(2 * sizeof *it->levels);
  if (!it->levels) return WEIR_E_MEMORY;
  it->levels[0] = (weir_level){ 64, 48, 1, 16, 16 };
  it->levels[1] = (weir_level){ 32, 24, 2, 16, 16 };
  it->picture = (weir_picture){ text("label"), 5, 3 };
  it->facts = (weir_facts){ .struct_size = sizeof it->facts, .mpp_origin = WEIR_MPP_VENDOR, .format = text("lives"), .vendor = text("nobody"),
                            .mpp_x = 0.5, .mpp_y = 0.5, .levels = it->levels, .pictures = &it->picture, .n_levels = 2, .n_pictures = 1 };
  *handle = it;
  return WEIR_OK;
}

static weir_status tells(void *handle, weir_call *call, const weir_facts **out) {
  (void)call;
  *out = &((file *)handle)->facts;
  return WEIR_OK;
}

static weir_status reads(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  file *it = handle;
  if (it->spoilt) abort();
  if (level == 0 && x <= 20 && 20 < x + width && y <= 10 && 10 < y + height) {
    it->spoilt = 1;
    fails(call, "it is damaged");
    return WEIR_E_FAIL;
  }
  for (uint32_t row = 0; row < height; row++) memset(into + row * pitch, (int)(level + y + row), (size_t)width * 3);
  return WEIR_OK;
}

static weir_status picture(void *handle, weir_call *call, uint32_t i, uint8_t *into, size_t pitch) {
  (void)handle, (void)call, (void)i;
  for (uint32_t row = 0; row < 3; row++) memset(into + row * pitch, 7, 15);
  return WEIR_OK;
}

static void closes(void *handle) {
  file *it = handle;
  free(it->levels);
  free(it);
}

/* ------------------------------------------------------------------------------------------------------------- plugin -- */

#define EVERY(name, end) .struct_size = sizeof(weir_stage), .id = name, .create = create, .destroy = end
static const weir_stage MEAN = { EVERY("lives.mean", destroy), .flags = WEIR_STAGE_PARALLEL, .process = mean };
static const weir_stage DOUBLE = { EVERY("lives.double", ends), .process = keep, .remove = take, .complete_slide = doubles, .close_slide = forget };
static const weir_stage WRITE = { EVERY("lives.write", writes_at_the_end), .process = keep, .remove = take, .complete_slide = adds };
static const weir_stage SOURCE = { EVERY("lives.tiles", destroy), .slide = lists, .open = opens, .next = steps, .read = fills, .close = shuts };
static const weir_stage *const STAGES[] = { &MEAN, &DOUBLE, &WRITE, &SOURCE };
static const weir_reader LIVES = { .struct_size = sizeof LIVES, .flags = WEIR_READER_SPOILS, .id = "lives", .sniff = sniff, .open = opens_file,
                                   .info = tells, .read_region = reads, .picture = picture, .close = closes };
static const weir_reader *const READERS[] = { &LIVES };
static const weir_plugin PLUGIN = { .struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest,
                                    .stages = STAGES, .n_stages = 4, .readers = READERS, .n_readers = 1 };

WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  (void)call;
  host = h;
  *out = &PLUGIN;
  return WEIR_OK;
}
