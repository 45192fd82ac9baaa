/* A plugin that breaks one rule at one tile, by name: for the tests of what a host survives. */
#include "weir_plugin.h"
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PARAMS                                                                                                              \
  "\"params\":[{\"name\":\"sin\",\"type\":\"choice\",\"default\":\"none\",\"doc\":\"Which rule is broken\",\"values\":["        \
  "\"none\",\"fail\",\"silent\",\"retry\",\"status\",\"lost\",\"twice\",\"both\",\"complete\",\"row\",\"port\",\"null\","         \
  "\"nan\",\"panic\",\"abort\",\"segfault\",\"exit\",\"loop\",\"overrun\",\"leak\",\"late\",\"never\",\"late-complete\","             \
  "\"thread\",\"shape\",\"read\",\"hoard\",\"count\",\"closes\",\"exits\",\"rounds\",\"gone\",\"drafts\",\"exits-aside\",\"retains-late\","   \
  "\"loop-open\",\"loop-next\",\"loop-close\",\"loop-slide\",\"loop-destroy\",\"column\"]},"                                \
  "{\"name\":\"slide\",\"type\":\"string\",\"default\":\"a\",\"doc\":\"At the first tile of which slide\"}]"
#define TILES "\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\""
#define SCORES "\"name\":\"scores\",\"kind\":\"scores\",\"shape\":[\"height\",\"width\",2],\"mpp\":\"mpp\""
#define PICKS "\"name\":\"picks\",\"kind\":\"picks\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\""

WEIR_MANIFEST("{\"weir-abi\":\"1.0\",\"name\":\"sin\",\"version\":\"0.1.0\",\"summary\":\"Breaks rules\",\"stages\":["
              "{\"id\":\"sin.map\",\"summary\":\"Hands tiles on\",\"rows\":\"map\",\"in\":[{" TILES "}],\"out\":[{" TILES "}]," PARAMS
              "},"
              "{\"id\":\"sin.score\",\"summary\":\"Scores by brightness\",\"rows\":\"map\",\"in\":[{" TILES "}],\"out\":[{" SCORES "}]," PARAMS
              "},"
              "{\"id\":\"sin.pick\",\"summary\":\"Picks every tile\",\"rows\":\"reduce\",\"in\":[{" SCORES "}],\"out\":[{" PICKS "}]," PARAMS
              "},"
              "{\"id\":\"sin.write\",\"summary\":\"Writes a sum a slide\",\"rows\":\"sink\",\"in\":[{" PICKS "}]," PARAMS
              "},"
              "{\"id\":\"sin.gather\",\"summary\":\"Picks every tile by its first value\",\"rows\":\"reduce\",\"in\":[{" TILES "}],\"out\":[{" PICKS "}]," PARAMS
              "},"
              "{\"id\":\"sin.keep\",\"summary\":\"Writes a sum a slide\",\"rows\":\"sink\",\"in\":[{" TILES "}]," PARAMS
              "},"
              "{\"id\":\"sin.source\",\"summary\":\"Gives twenty tiles of two slides\",\"rows\":\"source\",\"out\":["
              "{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[32,32,3],\"mpp\":1.0}]," PARAMS "}]"
              ",\"readers\":[{\"id\":\"sin\",\"summary\":\"Reads glass\",\"extensions\":[\"glass\"]}]"
              "}");

static const char *const NAMES[] = {"none", "fail",  "silent", "retry",    "status", "lost", "twice",   "both", "complete", "row",   "port",          "null",   "nan",
                                    "panic", "abort", "segfault", "exit", "loop", "overrun", "leak", "late",     "never", "late-complete", "thread", "shape", "read", "hoard", "count", "closes", "exits", "rounds", "gone", "drafts", "exits-aside", "retains-late", "loop-open", "loop-next", "loop-close", "loop-slide", "loop-destroy", "column"};
enum { NONE, FAIL, SILENT, RETRY, STATUS, LOST, TWICE, BOTH, COMPLETE, ROW, PORT, NULL_BATCH, NOT_A_NUMBER, PANIC, ABORT, SEGFAULT, EXIT, LOOP, OVERRUN, LEAK, LATE, NEVER, LATE_COMPLETE, THREAD, SHAPE, READ, HOARD, COUNT, CLOSES, EXITS, ROUNDS, GONE, DRAFTS, EXITS_ASIDE, RETAINS_LATE, LOOP_OPEN, LOOP_NEXT, LOOP_CLOSE, LOOP_SLIDE, LOOP_DESTROY, COLUMN };

typedef struct { uint64_t slide, tile; float score; } picked;
typedef struct {
  const weir_host *host;
  int sin, score;
  char slide[64];
  /* The number of that slide, where it is known. */
  uint64_t hangs_at;
  /* Of what gathers. */
  picked tiles[8192];
  uint32_t n;
} stage;

static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }

static weir_status create(const weir_host *host, const weir_value *values, uint32_t n, void **self, int score) {
  stage *it = calloc(1, sizeof *it);
  if (!it || n != 2) return WEIR_E_MEMORY;
  it->host = host;
  it->score = score;
  it->hangs_at = UINT64_MAX;
  for (int i = 0; i < (int)(sizeof NAMES / sizeof *NAMES); i++)
    if (values[0].s.len == strlen(NAMES[i]) && !memcmp(values[0].s.ptr, NAMES[i], values[0].s.len)) it->sin = i;
  const size_t most = sizeof it->slide - 1, len = values[1].s.len < most ? values[1].s.len : most;
  memcpy(it->slide, values[1].s.ptr, len);
  *self = it;
  return WEIR_OK;
}

static weir_status create_map(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call;
  return create(host, values, n, self, 0);
}

static weir_status create_score(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call;
  return create(host, values, n, self, 1);
}

/* A thread that outlives everything. */
static void *forever(void *nothing) {
  for (volatile unsigned turns = 0;; turns++) usleep(1000);
  return nothing;
}

/* A call that does not come back. */
static void hang(void) {
  for (volatile int on = 1; on;) usleep(1000);
}

static void destroy(void *self) {
  if (((stage *)self)->sin == LOOP_DESTROY) hang();
  if (((stage *)self)->sin == THREAD) {
    pthread_t thread;
    pthread_create(&thread, NULL, forever, NULL);
  }
  free(self);
}

static int is_of(const stage *it, const weir_slide *slide) { return slide->id.len == strlen(it->slide) && !memcmp(slide->id.ptr, it->slide, slide->id.len); }

/* While it is loaded, where SIN_AT_LOAD is set. */
__attribute__((constructor)) static void exits_at_load(void) {
  if (getenv("SIN_AT_LOAD")) exit(0);
}

static void *exits_aside(void *none) {
  (void)none;
  exit(0);
}

/* Sins that any function can commit; its status, or 0 where it goes on. */
static weir_status sinned(const stage *it, weir_call *call) {
  switch (it->sin) {
    case FAIL: it->host->fail(call, &(weir_error){text("the slide is cursed"), text(""), text("lift the curse")}); return WEIR_E_FAIL;
    case SILENT: return WEIR_E_FAIL;
    case STATUS: return 77;
    case PANIC: it->host->fail(call, &(weir_error){text("src/lib.rs:1: on purpose"), text(""), text("")}); return WEIR_E_PANIC;
    case ABORT: abort();
    case SEGFAULT: *(volatile int *)(uintptr_t)8 = 1; return 0;
    case EXIT: _exit(3);
    case EXITS: exit(0);
    case EXITS_ASIDE: {
      pthread_t aside;
      pthread_create(&aside, NULL, exits_aside, NULL);
      sleep(20);
      return WEIR_E_FAIL;
    }
    case LOOP: hang(); return 0;
    default: return 0;
  }
}

/* Completes a call that has returned long before. */
static const weir_host *completing;
static void *completes(void *call) {
  usleep(5000);
  completing->complete(call, WEIR_OK);
  return NULL;
}

/* Holds on to an input whose call is over. */
static const weir_host *retaining;
static void *retains_late(void *batch) {
  usleep(1000);
  retaining->batch_retain(batch);
  return NULL;
}

/* A call that writes whenever it likes, long after it returned. */
static void *later(void *pixels) {
  for (;;) {
    usleep(1000);
    *(volatile uint8_t *)pixels ^= 1;
  }
  return NULL;
}

static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  stage *it = self;
  const weir_host *host = it->host;
  uint32_t kept[1024], n = 0, sinner = UINT32_MAX;
  (void)port;
  if (batch->n_rows > 1024) return WEIR_E_FAIL;
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    const weir_row *row = &batch->rows[i];
    const weir_slide *slide = batch->slides[row->slide];
    const int here = row->x == 0 && row->y == 0 && is_of(it, slide);
    if (here && it->sin != NONE) sinner = i;
    if (here && it->sin == LOST) continue;
    if (it->sin == COLUMN && row->x == 0 && is_of(it, slide)) hang();
    kept[n++] = i;
  }
  const int sins = sinner != UINT32_MAX;
  if (it->sin == HOARD) host->batch_retain(batch);
  if (it->sin == DRAFTS && !host->batch_edit(call, 0)) return WEIR_E_FAIL;
  if (it->sin == ROUNDS) fesetround(FE_UPWARD);
  /* Time for the thread of an earlier call to do what it does. */
  if ((it->sin == LATE || it->sin == RETAINS_LATE) && !sins) usleep(5000);
  weir_batch *out = NULL;
  if (it->score) {
    out = host->batch_new(call, 0, n, kept);
    if (!out) return WEIR_E_FAIL;
    for (uint32_t i = 0; i < n; i++) {
      const uint8_t *pixels = batch->columns[0].rows[kept[i]];
      const size_t size = (size_t)(batch->columns[0].shape[0] * batch->columns[0].shape[1] * 3);
      double sum = 0;
      for (size_t k = 0; k < size; k++) sum += pixels[k];
      const float p = (float)(sum / 255.0 / (double)size);
      *(float *)out->columns[0].rows[i] = sins && it->sin == NOT_A_NUMBER && kept[i] == sinner ? 0.0f / 0.0f * p : p;
      ((float *)out->columns[1].rows[i])[0] = 1 - p;
      ((float *)out->columns[1].rows[i])[1] = p;
    }
  }
  if (sins) switch (it->sin) {
      case FAIL: case SILENT: case STATUS: case PANIC: case ABORT: case SEGFAULT: case EXIT: case EXITS: case EXITS_ASIDE: case LOOP: {
        const weir_status said = sinned(it, call);
        if (said) return said;
        break;
      }
      case RETRY: return WEIR_E_RETRY;
      case NEVER: return WEIR_PENDING;
      case TWICE: host->pass(call, 0, &sinner, 1); break;
      case BOTH: host->fail_row(call, sinner, &(weir_error){text("and made as well"), text(""), text("")}); break;
      case COMPLETE:
        host->pass(call, 0, kept, n);
        host->complete(call, WEIR_OK);
        host->complete(call, WEIR_OK);
        return WEIR_PENDING;
      case ROW: host->skip(call, batch->n_rows, text("beyond")); break;
      case PORT: host->pass(call, 7, kept, n); break;
      case NULL_BATCH: host->emit(call, 0, NULL); break;
      case OVERRUN: {
        weir_batch *edit = host->batch_edit(call, 0);
        if (!edit) return WEIR_E_FAIL;
        uint8_t *pixels = edit->columns[0].rows[sinner];
        for (size_t k = 0; k < (size_t)64 << 20; k++) pixels[k] = 7;
        host->batch_release(edit);
        break;
      }
      case LEAK: host->batch_retain(batch); break;
      case RETAINS_LATE: {
        pthread_t aside;
        retaining = host;
        pthread_create(&aside, NULL, retains_late, (void *)batch);
        pthread_detach(aside);
        break;
      }
      case GONE: {
        weir_batch *edit = host->batch_edit(call, 0);
        if (!edit) return WEIR_E_FAIL;
        host->batch_release(edit);
        host->batch_release(edit);
        host->batch_retain(edit);
        return host->emit(call, 0, edit);
      }
      case LATE: {
        pthread_t thread;
        pthread_create(&thread, NULL, later, batch->columns[0].rows[sinner]);
        break;
      }
      case LATE_COMPLETE: {
        pthread_t thread;
        completing = host;
        pthread_create(&thread, NULL, completes, call);
        break;
      }
      default: break;
    }
  return it->score ? host->emit(call, 0, out) : host->pass(call, 0, kept, n);
}

/* ---------------------------------------------------------------------------------------------------- reduce and sink -- */

static weir_status add(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  stage *it = self;
  (void)call, (void)port;
  if (it->sin == LEAK) it->host->batch_retain(batch);
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    if (it->n == 8192) return WEIR_E_MEMORY;
    it->tiles[it->n++] = (picked){batch->rows[i].key.slide, batch->rows[i].key.tile, *(float *)batch->columns[0].rows[i]};
  }
  return WEIR_OK;
}

/* The same of tiles; it may keep those of its slide. */
static weir_status add_tiles(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  stage *it = self;
  (void)call, (void)port;
  if (it->sin == HOARD && batch->n_rows && is_of(it, batch->slides[batch->rows[0].slide])) it->host->batch_retain(batch);
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    if (it->n == 8192) return WEIR_E_MEMORY;
    it->tiles[it->n++] = (picked){batch->rows[i].key.slide, batch->rows[i].key.tile, (float)*(uint8_t *)batch->columns[0].rows[i] / 255};
  }
  return WEIR_OK;
}

static weir_status take(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  stage *it = self;
  (void)call, (void)port;
  for (uint32_t r = 0; r < n; r++)
    for (uint32_t i = 0; i < it->n; i++)
      if (it->tiles[i].slide == rows[r].key.slide && it->tiles[i].tile == rows[r].key.tile) it->tiles[i--] = it->tiles[--it->n];
  return WEIR_OK;
}

static void forget(void *self, uint64_t slide) {
  stage *it = self;
  /* Of which slide it is, only its tiles say. */
  if (it->sin == LOOP_CLOSE && it->hangs_at == slide) hang();
  for (uint32_t i = 0; i < it->n; i++)
    if (it->tiles[i].slide == slide) it->tiles[i--] = it->tiles[--it->n];
}

static weir_status picks(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  stage *it = self;
  uint64_t tiles[8192] = {0};
  float scores[8192];
  uint32_t n = 0;
  (void)rev, (void)end;
  const int here = is_of(it, slide);
  if (here) it->hangs_at = slide->number;
  for (uint32_t i = 0; i < it->n; i++)
    if (it->tiles[i].slide == slide->number) {
      scores[n] = it->tiles[i].score;
      tiles[n++] = it->tiles[i].tile;
    }
  if (here) {
    const weir_status said = sinned(it, call);
    if (said) return said;
    if (it->sin == ROW) tiles[0] ^= 1;
    if (it->sin == TWICE) tiles[0] = tiles[1];
    if (it->sin == NOT_A_NUMBER) scores[0] = 0.0f / 0.0f;
  }
  weir_batch *out = it->host->batch_for(call, 0, slide->number, n, tiles);
  if (!out) return WEIR_E_FAIL;
  for (uint32_t i = 0; i < n; i++) *(float *)out->columns[0].rows[i] = scores[i];
  if (here && it->sin == OVERRUN) memset(out->columns[0].rows[n - 1], 1, (size_t)64 << 20);
  return it->host->emit(call, 0, out);
}

static weir_status writes(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  stage *it = self;
  char path[4096];
  double sum = 0;
  uint32_t n = 0;
  (void)rev, (void)end;
  if (is_of(it, slide)) {
    it->hangs_at = slide->number;
    const weir_status said = sinned(it, call);
    if (said) return said;
    if (it->sin == OVERRUN) memset((void *)(uintptr_t)slide->id.ptr, 1, (size_t)64 << 20);
  }
  for (uint32_t i = 0; i < it->n; i++)
    if (it->tiles[i].slide == slide->number) sum += it->tiles[i].score, n++;
  const weir_str folder = it->host->folder(call);
  snprintf(path, sizeof path, "%.*s/%.*s.txt", (int)folder.len, folder.ptr, (int)slide->id.len, slide->id.ptr);
  FILE *file = fopen(path, "w");
  if (!file) return WEIR_E_FAIL;
  fprintf(file, "%u %.6f\n", n, sum);
  return fclose(file) ? WEIR_E_FAIL : WEIR_OK;
}

/* ------------------------------------------------------------------------------------------------------------- source -- */

enum { ACROSS = 5, TILE = 32, GIVEN = 20 };
typedef struct { const stage *of; int at, here; uint64_t i; int closed; } opened;

static weir_status lists(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  static const char *const IDS[] = {"a", "b"};
  (void)call;
  if (i >= 2) return WEIR_END;
  if (((stage *)self)->sin == LOOP_SLIDE) hang();
  out->id = text(IDS[i]);
  out->path = text("none");
  return WEIR_OK;
}

static weir_status opens(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **slide) {
  const stage *of = self;
  const int here = of->slide[0] == "ab"[i];
  (void)key;
  if (here && of->sin == LOOP_OPEN) hang();
  if (here && (of->sin == FAIL || of->sin == SILENT || of->sin == PANIC)) return sinned(of, call);
  opened *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  *it = (opened){of, 0, here, i, 0};
  out->width = ACROSS * TILE;
  out->height = GIVEN / ACROSS * TILE;
  out->mpp_x = out->mpp_y = 1;
  out->tiles = GIVEN;
  if (here && of->sin == COUNT) out->tiles = UINT64_MAX / 8;
  if (here && of->sin == NOT_A_NUMBER) out->mpp_x = 0.0f / 0.0f;
  *slide = it;
  return WEIR_OK;
}

static weir_status steps(void *slide, weir_call *call, weir_step *out) {
  opened *it = slide;
  if (it->at == GIVEN) return WEIR_END;
  if (it->here && it->of->sin == CLOSES && it->at == 3 && it->closed++ < 20) return out->kind = WEIR_STEP_CLOSE, WEIR_OK;
  out->kind = WEIR_STEP_TILE;
  out->x = it->at % ACROSS * TILE;
  out->y = it->at / ACROSS * TILE;
  out->width = out->height = TILE;
  if (it->here && it->at == 3) {
    const int sin = it->of->sin;
    if (sin == STATUS || sin == ABORT || sin == SEGFAULT || sin == EXIT || sin == LOOP) {
      const weir_status said = sinned(it->of, call);
      if (said) return said;
    }
    if (sin == LOOP_NEXT) hang();
    if (sin == ROW) out->x = INT64_C(1) << 40;
    if (sin == PORT) out->kind = 9;
    if (sin == SHAPE) out->width = 7;
  }
  it->at++;
  return WEIR_OK;
}

static weir_status fills(void *slide, weir_call *call, const weir_row *row, void *into, size_t len) {
  const opened *it = slide;
  uint32_t noise = (uint32_t)(row->x * 31 + row->y * 7 + (int64_t)it->i * 1009 + 1);
  const int first = it->here && row->x == 0 && row->y == 0;
  if (first && it->of->sin == READ) return it->of->host->fail(call, &(weir_error){text("the tile is cursed"), text(""), text("")}), WEIR_E_FAIL;
  for (size_t k = 0; k < len; k++) {
    noise = noise * 1664525 + 1013904223;
    ((uint8_t *)into)[k] = (uint8_t)(noise >> 24);
  }
  if (first && it->of->sin == OVERRUN) memset(into, 1, (size_t)64 << 20);
  return WEIR_OK;
}

static void shuts(void *slide) {
  if (((opened *)slide)->here && ((opened *)slide)->of->sin == LOOP_CLOSE) hang();
  free(slide);
}

/* ------------------------------------------------------------------------------------------------------------- reader -- */

/* "SINGLASS" and the name of a sin: 160 x 128 px at 1 um/px. "sight" hangs where it is looked at. */
typedef struct { char sin[32]; weir_level level; weir_facts facts; } glass;
static const weir_host *reading;

static int32_t sniffs(weir_str path, const uint8_t *head, size_t len) {
  (void)path;
  if (len >= 13 && !memcmp(head, "SINGLASSsight", 13)) hang();
  return len >= 8 && !memcmp(head, "SINGLASS", 8) ? 90 : 0;
}
static weir_status opens_glass(const weir_host *host, weir_call *call, weir_str path, void **handle) {
  char name[4096], bytes[64] = {0};
  reading = host;
  snprintf(name, sizeof name, "%.*s", (int)path.len, path.ptr);
  FILE *file = fopen(name, "rb");
  if (!file) return WEIR_E_FAIL;
  const size_t len = fread(bytes, 1, 39, file);
  fclose(file);
  if (len < 9) return WEIR_E_FAIL;
  glass *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  memcpy(it->sin, bytes + 8, 31);
  if (!strcmp(it->sin, "loop-open")) hang();
  if (!strcmp(it->sin, "fail")) {
    host->fail(call, &(weir_error){text("the glass is cursed"), text(""), text("")});
    free(it);
    return WEIR_E_FAIL;
  }
  it->level = (weir_level){ACROSS * TILE, !strcmp(it->sin, "shape") ? -5 : GIVEN / ACROSS * TILE, 1, 0, 0};
  it->facts = (weir_facts){.struct_size = sizeof it->facts, .mpp_origin = WEIR_MPP_VENDOR, .format = text("glass"), .vendor = text("nobody"),
                           .mpp_x = 1, .mpp_y = 1, .levels = &it->level, .n_levels = 1};
  *handle = it;
  return WEIR_OK;
}
static weir_status tells(void *handle, weir_call *call, const weir_facts **out) {
  (void)call;
  *out = strcmp(((glass *)handle)->sin, "null") ? &((glass *)handle)->facts : NULL;
  return WEIR_OK;
}
static weir_status reads(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  const glass *it = handle;
  (void)level;
  if (x == 0 && y == 0) {
    if (!strcmp(it->sin, "read")) return reading->fail(call, &(weir_error){text("the tile is cursed"), text(""), text("")}), WEIR_E_FAIL;
    if (!strcmp(it->sin, "status")) return 77;
    if (!strcmp(it->sin, "abort")) abort();
    if (!strcmp(it->sin, "segfault")) *(volatile int *)(uintptr_t)8 = 1;
    if (!strcmp(it->sin, "loop")) hang();
    if (!strcmp(it->sin, "complete")) reading->complete(call, WEIR_OK), reading->complete(call, WEIR_OK);
    if (!strcmp(it->sin, "row")) reading->skip(call, 0, text("beyond"));
  }
  for (uint32_t row = 0; row < height; row++)
    for (uint32_t k = 0; k < 3 * width; k++) into[row * pitch + k] = (uint8_t)(((x + k / 3) * 31 + (y + row) * 7 + k % 3) * 2654435761u >> 13);
  return WEIR_OK;
}
static void closes(void *handle) {
  if (!strcmp(((glass *)handle)->sin, "loop-close")) hang();
  free(handle);
}
static const weir_reader GLASS = {.struct_size = sizeof GLASS, .flags = WEIR_READER_PARALLEL, .id = "sin", .sniff = sniffs, .open = opens_glass, .info = tells, .read_region = reads, .close = closes};
static const weir_reader *const READERS[] = {&GLASS};

/* ------------------------------------------------------------------------------------------------------------- plugin -- */

#define EVERY(name, make) .struct_size = sizeof(weir_stage), .flags = WEIR_STAGE_DETERMINISTIC, .id = name, .create = make, .destroy = destroy
static const weir_stage MAP = {EVERY("sin.map", create_map), .process = process};
static const weir_stage SCORE = {EVERY("sin.score", create_score), .process = process};
static const weir_stage PICK = {EVERY("sin.pick", create_map), .process = add, .remove = take, .complete_slide = picks, .close_slide = forget};
static const weir_stage WRITE = {EVERY("sin.write", create_map), .process = add, .remove = take, .complete_slide = writes, .close_slide = forget};
static const weir_stage GATHER = {EVERY("sin.gather", create_map), .process = add_tiles, .remove = take, .complete_slide = picks, .close_slide = forget};
static const weir_stage KEEP = {EVERY("sin.keep", create_map), .process = add_tiles, .remove = take, .complete_slide = writes, .close_slide = forget};
static const weir_stage SOURCE = {EVERY("sin.source", create_map), .slide = lists, .open = opens, .next = steps, .read = fills, .close = shuts};
static const weir_stage *const STAGES[] = {&MAP, &SCORE, &PICK, &WRITE, &SOURCE, &GATHER, &KEEP};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 7, .readers = READERS, .n_readers = 1};

weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host;
  (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
