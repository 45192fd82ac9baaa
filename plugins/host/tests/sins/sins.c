/* A plugin with a stage for every sin. It sins at tiles whose first byte is 13, as its parameter `how` says. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "weir_plugin.h"

#define TILES "\"kind\": \"pixels\", \"shape\": [\"height\", \"width\", 3], \"mpp\": \"mpp\""
#define HOW "\"params\": [ { \"name\": \"how\", \"type\": \"string\", \"default\": \"\", \"doc\": \"What to do\" } ]"
WEIR_MANIFEST(
    "{ \"weir-abi\": \"1.0\", \"name\": \"sins\", \"version\": \"0.1.0\", \"summary\": \"For tests\", \"stages\": ["
    "{ \"id\": \"sins.pass\", \"summary\": \"Hands tiles on\", \"rows\": \"filter\", \"concurrency\": \"parallel\","
    "  \"in\": [ { \"name\": \"tiles\", " TILES " } ], \"out\": [ { \"name\": \"tiles\", " TILES " } ], " HOW " },"
    "{ \"id\": \"sins.invert\", \"summary\": \"Makes tiles\", \"rows\": \"map\","
    "  \"in\": [ { \"name\": \"tiles\", " TILES " } ], \"out\": [ { \"name\": \"tiles\", " TILES " } ], " HOW " },"
    "{ \"id\": \"sins.mean\", \"summary\": \"Makes features\", \"rows\": \"map\","
    "  \"in\": [ { \"name\": \"tiles\", " TILES " } ],"
    "  \"out\": [ { \"name\": \"features\", \"kind\": \"features\", \"shape\": [3] } ], " HOW " },"
    "{ \"id\": \"sins.pool\", \"summary\": \"Adds features\", \"rows\": \"reduce\","
    "  \"in\": [ { \"name\": \"features\", \"kind\": \"features\", \"shape\": [3] } ],"
    "  \"out\": [ { \"name\": \"sums\", \"kind\": \"table\" } ], " HOW " },"
    "{ \"id\": \"sins.once\", \"summary\": \"Adds features that stay\", \"rows\": \"reduce\", \"batch-only\": true,"
    "  \"in\": [ { \"name\": \"features\", \"kind\": \"features\", \"shape\": [3] } ],"
    "  \"out\": [ { \"name\": \"sums\", \"kind\": \"table\" } ], " HOW " },"
    "{ \"id\": \"sins.write\", \"summary\": \"Counts features\", \"rows\": \"sink\","
    "  \"in\": [ { \"name\": \"features\", \"kind\": \"features\", \"shape\": [3] } ], " HOW " },"
    "{ \"id\": \"sins.source\", \"summary\": \"Gives tiles\", \"rows\": \"source\","
    "  \"out\": [ { \"name\": \"tiles\", \"kind\": \"pixels\", \"shape\": [8, 8, 3], \"mpp\": 0.5 } ], " HOW " } ],"
    "\"readers\": [ { \"id\": \"sins\", \"summary\": \"Makes pixels up\", \"extensions\": [\"sin\"] } ] }");

static const weir_host *host;
typedef struct { char how[32]; uint64_t slide; double sums[64][3]; uint64_t seen, place, calls; weir_batch *kept; } self_t;

static int is(const self_t *me, const char *how) { return strcmp(me->how, how) == 0; }

static weir_status create(const weir_host *h, weir_call *call, const weir_value *values, uint32_t n, void **out) {
  self_t *me = calloc(1, sizeof *me);
  host = h;
  if (n > 0 && values[0].kind == WEIR_STRING) memcpy(me->how, values[0].s.ptr, values[0].s.len < 31 ? values[0].s.len : 31);
  if (is(me, "refuse")) {
    weir_error error = { { "no", 2 }, { "how", 3 }, { "say something else", 18 } };
    h->fail(call, &error);
    free(me);
    return WEIR_E_PARAM;
  }
  if (is(me, "die-in-create")) abort();
  if (is(me, "once")) {
    /* Only the first of a run comes up. */
    char path[512];
    weir_str folder = h->folder(call);
    snprintf(path, sizeof path, "%.*s/once", (int)folder.len, folder.ptr);
    if (access(path, F_OK) == 0) abort();
    fclose(fopen(path, "w"));
  }
  *out = me;
  return WEIR_OK;
}

/* At a signal, when nobody asks anything of it. */
static void end_idle(const self_t *me) { if (is(me, "dies-idle")) alarm(1); }

static void *forever(void *arg) { (void)arg; for (;;) usleep(1000); return NULL; }

/* Instances that were destroyed, and those that are being: what is said of "orderly" instances holds in one run of a process. */
static _Atomic int gone, going;

static void destroy(void *self) {
  self_t *me = self;
  if (is(me, "orderly")) {
    /* [setup] functions are called one at a time. */
    if (going++ > 0) abort();
    usleep(20000);
    gone++;
    going--;
  }
  if (is(me, "thread")) { pthread_t thread; pthread_create(&thread, NULL, forever, NULL); }
  if (me->kept) host->batch_release(me->kept);
  free(me);
}

static void *holding(void *in) {
  for (int i = 0; i < 1000; i++) host->batch_retain(in), host->batch_release(in), usleep(200);
  return NULL;
}

static void *later(void *call) { usleep(2000); host->complete(call, WEIR_OK); return NULL; }

static void sins(self_t *me, weir_call *call, uint8_t *own, size_t len, uint8_t *input) {
  if (is(me, "abort")) abort();
  if (is(me, "segv")) { volatile int *no = NULL; *no = 1; }
  if (is(me, "exit")) _exit(7);
  if (is(me, "term")) raise(SIGTERM);
  if (is(me, "loop")) for (volatile int i = 0;; i++) {}
  if (is(me, "sleep")) for (;;) sleep(1);
  if (is(me, "input")) input[0] ^= 1;
  if (is(me, "overrun") && own) for (size_t i = 0; i < 8192; i++) ((volatile uint8_t *)own)[len + i] = 1;
  if (is(me, "underrun") && own) for (size_t i = 1; i < 8192; i++) ((volatile uint8_t *)own)[-(ptrdiff_t)i] = 1;
  if (is(me, "junk"))
    for (int fd = 3; fd < 64; fd++) {
      struct stat about;
      char junk[64];
      memset(junk, 0xfe, sizeof junk);
      if (fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode) && write(fd, junk, sizeof junk) < 0) perror("junk");
    }
  if (is(me, "late"))
    for (int fd = 3; fd < 64; fd++) {
      /* An answer to the first call, "done, nothing made", sent again. */
      struct stat about;
      uint32_t words[10] = { 25, 16, 1 };
      if (fstat(fd, &about) == 0 && S_ISSOCK(about.st_mode) && write(fd, words, 8 + 25) < 0) perror("late");
    }
  if (is(me, "close"))
    for (int fd = 3; fd < 64; fd++) close(fd);
  if (is(me, "close-and-stay")) {
    for (int fd = 0; fd < 64; fd++) if (fd != 2) close(fd);
    for (;;) sleep(1);
  }
  if (is(me, "fork"))
    for (int i = 0; i < 3; i++)
      if (fork() == 0) for (;;) pause();
  if (is(me, "fork")) _exit(9);
  if (is(me, "twice")) host->complete(call, WEIR_OK), host->complete(call, WEIR_OK);
}

static int marked(const weir_batch *in, uint32_t row) { return *(const uint8_t *)in->columns[0].rows[row] == 13; }
static size_t bytes_of(const weir_column *c) { size_t n = c->dtype.bits / 8; for (int i = 0; i < c->ndim; i++) n *= (size_t)c->shape[i]; return n; }

static weir_status pass(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  self_t *me = self;
  static char text[16000];
  uint32_t rows[4096], n = 0;
  int lost = 0;
  (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    if (marked(in, i)) {
      sins(me, call, NULL, 0, in->columns[0].rows[i]);
      if (is(me, "status")) return 77;
      if (is(me, "heap")) for (int n = 0; n < 1 << 20; n++) if (!malloc(1 << 30)) return WEIR_E_MEMORY;
      if (is(me, "until-stopped")) { while (!host->cancelled(call)) usleep(1000); return WEIR_E_CANCELLED; }
      if (is(me, "gone")) return INT32_MIN;
      if (is(me, "pending")) return WEIR_PENDING;
      if (is(me, "panic")) return WEIR_E_PANIC;
      if (is(me, "both")) { uint32_t two[2] = { i, i }; host->pass(call, 0, two, 2); continue; }
      if (is(me, "lose")) { lost = 1; continue; }
      if (is(me, "row")) host->skip(call, 9999, (weir_str){ "no", 2 });
      if (is(me, "skip")) { host->skip(call, i, (weir_str){ "blurred", 7 }); continue; }
      if (is(me, "fail")) { weir_error e = { { "too dark", 8 }, { NULL, 0 }, { "more light", 10 } }; host->fail_row(call, i, &e); continue; }
    }
    rows[n++] = i;
  }
  (void)lost;
  if (is(me, "log")) host->log(call, WEIR_LOG_INFO, (weir_str){ "hello", 5 });
  if (is(me, "count")) { const weir_metrics_v1 *m = host->extension("weir.metrics/1"); m->count(call, (weir_str){ "rows", 4 }, in->n_rows); }
  /* Rows that are none, and a row without end. */
  if (is(me, "nothing")) for (int i = 0; i < 26000000; i++) host->pass(call, 0, rows, 0);
  if (is(me, "endless")) for (int i = 0; i < 6000; i++) {
    weir_error e = { { text, sizeof text }, { text, sizeof text }, { text, sizeof text } };
    if (host->fail_row(call, 0, &e) != WEIR_OK) break;
  }
  if (is(me, "tally")) {
    const weir_metrics_v1 *m = host->extension("weir.metrics/1");
    for (int i = 0; i < 16000000; i++) m->count(call, (weir_str){ "rows", 4 }, i % 2);
  }
  if (is(me, "print")) { printf("printed\n"); fflush(stdout); }
  weir_status said = host->pass(call, 0, rows, n);
  if (is(me, "holding") && me->seen++ == 0) { pthread_t thread; pthread_create(&thread, NULL, holding, (void *)(uintptr_t)in); pthread_detach(thread); }
  if (is(me, "completed")) host->complete(call, WEIR_OK);
  if (is(me, "later")) { pthread_t thread; pthread_create(&thread, NULL, later, call); pthread_detach(thread); return WEIR_PENDING; }
  return said;
}

static weir_status invert(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  self_t *me = self;
  uint32_t rows[4096];
  (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) rows[i] = i;
  /* From the third call on: rows that took the places of the last one's. */
  if (is(me, "retain") || (is(me, "retain-third") && me->calls++ >= 2)) {
    if (me->kept) {
      /* What was kept must still be what it was. */
      if (me->seen != *(const uint64_t *)me->kept->columns[0].rows[0] || me->place != me->kept->rows[0].key.tile) abort();
      host->batch_release(me->kept);
    }
    host->batch_retain(in);
    me->kept = (weir_batch *)in;
    memcpy(&me->seen, in->columns[0].rows[0], 8);
    me->place = in->rows[0].key.tile;
  }
  if (strncmp(me->how, "gone-", 5) == 0) {
    weir_batch *gone = host->batch_new(call, 0, in->n_rows, rows);
    host->batch_release(gone);
    if (is(me, "gone-retain")) host->batch_retain(gone);
    if (is(me, "gone-release")) host->batch_release(gone);
    return is(me, "gone-emit") ? host->emit(call, 0, gone) : WEIR_OK;
  }
  if (is(me, "again")) host->batch_release(host->batch_new(call, 0, in->n_rows, rows));
  weir_batch *out = is(me, "edit") ? host->batch_edit(call, 0) : host->batch_new(call, 0, in->n_rows, rows);
  if (!out) return WEIR_E_FAIL;
  size_t bytes = bytes_of(&out->columns[0]);
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const uint8_t *from = in->columns[0].rows[i];
    uint8_t *to = out->columns[0].rows[i];
    if (is(me, "edit")) for (size_t b = 0; b < bytes; b++) to[b] = 255 - to[b];
    else for (size_t b = 0; b < bytes; b++) to[b] = 255 - from[b];
    if (marked(in, i)) sins(me, call, to, bytes, (uint8_t *)from);
  }
  if (is(me, "double")) host->emit(call, 0, host->batch_new(call, 0, in->n_rows, rows));
  if (is(me, "much")) host->batch_retain(out);
  if (is(me, "port")) return host->emit(call, 3, out);
  return host->emit(call, 0, out);
}

static weir_status mean(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  self_t *me = self;
  uint32_t rows[4096];
  (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) rows[i] = i;
  weir_batch *out = host->batch_new(call, 0, in->n_rows, rows);
  if (!out) return WEIR_E_FAIL;
  if (is(me, "unwritten") && me->seen++ > 0) return host->emit(call, 0, out);
  if (is(me, "orderly")) {
    /* The stages before have had all that comes for long when the last of it is here. */
    usleep(200000);
    if (gone + going > 0) return WEIR_E_FAIL;
  }
  for (uint32_t i = 0; i < in->n_rows; i++) {
    float *to = out->columns[0].rows[i];
    const uint8_t *from = in->columns[0].rows[i];
    size_t n = bytes_of(&in->columns[0]) / 3;
    for (int c = 0; c < 3; c++) {
      double sum = 0;
      for (size_t p = 0; p < n; p++) sum += from[3 * p + c];
      to[c] = (float)(sum / (double)n);
    }
    /* All of a slide. */
    const weir_str slide = in->slides[in->rows[i].slide]->id;
    if (slide.len == 2 && memcmp(slide.ptr, "s1", 2) == 0) {
      if (is(me, "sleep-s1")) for (;;) sleep(1);
      if (is(me, "abort-s1")) abort();
    }
    if (marked(in, i)) {
      sins(me, call, (uint8_t *)to, 12, (uint8_t *)from);
      if (is(me, "nan")) to[1] = NAN;
    }
  }
  return host->emit(call, 0, out);
}

static weir_status add(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  self_t *me = self;
  (void)port, (void)call;
  if (is(me, "hoard") && *(const float *)in->columns[0].rows[0] == 7) host->batch_retain(in);
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const float *from = in->columns[0].rows[i];
    if (from[0] == 13 && (is(me, "abort") || is(me, "once"))) abort();
    for (int c = 0; c < 3; c++) me->sums[in->rows[i].key.slide & 63][c] += from[c];
  }
  return WEIR_OK;
}

static weir_status take(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)self, (void)call, (void)port, (void)rows, (void)n;
  return WEIR_OK;
}

static weir_status sums(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  self_t *me = self;
  char text[128];
  (void)rev, (void)end;
  int n = snprintf(text, sizeof text, "%.*s %g %g %g", (int)slide->id.len, slide->id.ptr, me->sums[slide->number & 63][0],
                   me->sums[slide->number & 63][1], me->sums[slide->number & 63][2]);
  return host->table(call, 0, UINT32_MAX, text, (size_t)n);
}

static weir_status noted(void *self, weir_call *call, const weir_slide *slide, uint32_t rev, uint32_t end) {
  self_t *me = self;
  char path[512], text[64];
  weir_str folder = host->folder(call);
  (void)rev, (void)end;
  snprintf(path, sizeof path, "%.*s/%.*s.txt", (int)folder.len, folder.ptr, (int)slide->id.len, slide->id.ptr);
  FILE *file = fopen(path, "w");
  if (!file) return WEIR_E_FAIL;
  int n = snprintf(text, sizeof text, "%g\n", me->sums[slide->number & 63][0]);
  fwrite(text, 1, (size_t)n, file);
  fclose(file);
  return WEIR_OK;
}

static void forget(void *self, uint64_t slide) { end_idle(self); memset(((self_t *)self)->sums[slide & 63], 0, sizeof(double[3])); }

typedef struct { self_t *me; int at, tiles, panicked; uint64_t i; char closed[512]; } opened_t;
static weir_status listed(void *self, weir_call *call, uint64_t i, weir_slide *out) {
  static _Thread_local char id[16];
  (void)call;
  if (i >= 3 && !is(self, "endless")) return WEIR_END;
  snprintf(id, sizeof id, "s%d", (int)i);
  out->id = (weir_str){ id, strlen(id) };
  out->path = (weir_str){ "none", 4 };
  return WEIR_OK;
}
static weir_status opened(void *self, weir_call *call, uint64_t i, void *key, weir_slide *out, void **slide) {
  opened_t *it = calloc(1, sizeof *it);
  (void)call, (void)key;
  it->me = self;
  it->i = i;
  it->tiles = is(it->me, "many") ? 120 : 4;
  out->width = 16 * it->tiles;
  out->height = 64;
  out->mpp_x = out->mpp_y = 0.5;
  out->tiles = it->tiles;
  *slide = it;
  if (is(it->me, "breach") && i == 1) {
    weir_str folder = host->folder(call);
    snprintf(it->closed, sizeof it->closed, "%.*s/closed", (int)folder.len, folder.ptr);
    host->skip(call, 0, (weir_str){ "no", 2 });
  }
  return WEIR_OK;
}
static weir_status next(void *slide, weir_call *call, weir_step *out) {
  opened_t *it = slide;
  (void)call;
  if (it->panicked) abort();
  if (it->at == it->tiles) return WEIR_END;
  out->kind = WEIR_STEP_TILE;
  out->x = 8 * it->at++;
  out->y = 0;
  out->width = out->height = 8;
  return WEIR_OK;
}
static weir_status fill(void *slide, weir_call *call, const weir_row *row, void *into, size_t len) {
  opened_t *it = slide;
  if (it->panicked) abort();
  if (it->i == 1 && row->x == 16 && is(it->me, "panic")) {
    it->panicked = 1;
    return WEIR_E_PANIC;
  }
  if (it->i == 1 && row->x == 16) sins(it->me, call, into, len, into);
  memset(into, (int)(row->x + 5 * (int64_t)it->i), len);
  return WEIR_OK;
}
static void shut(void *slide) {
  opened_t *it = slide;
  if (it->panicked || is(it->me, "die-in-close")) abort();
  if (it->closed[0]) fclose(fopen(it->closed, "w"));
  free(it);
}

/* A slide reader: pixels by their place. It sins where (20, 10) of level 0 is read, as the slide's second word says. */
typedef struct { char how[32], path[400]; int panicked; weir_level levels[2]; weir_picture picture; weir_property key; weir_facts facts; } file_t;

static int32_t sniff(weir_str path, const uint8_t *head, size_t len) {
  (void)path;
  if (len >= 18 && memcmp(head, "SINS loop-at-sight", 18) == 0) for (volatile int i = 0;; i++) {}
  if (len >= 17 && memcmp(head, "SINS die-at-sight", 17) == 0) abort();
  return len >= 4 && memcmp(head, "SINS", 4) == 0 ? 100 : 0;
}
static weir_status open_file(const weir_host *h, weir_call *call, weir_str path, void **out) {
  file_t *it = calloc(1, sizeof *it);
  snprintf(it->path, sizeof it->path, "%.*s", (int)path.len, path.ptr);
  FILE *file = fopen(it->path, "r");
  if (!file || fscanf(file, "SINS %31s", it->how) < 1) it->how[0] = 0;
  if (file) fclose(file);
  if (strcmp(it->how, "die-in-open") == 0) abort();
  if (strcmp(it->how, "once") == 0) {
    /* Only the first time it opens. */
    char path[512];
    snprintf(path, sizeof path, "%s.opened", it->path);
    if (access(path, F_OK) == 0) for (;;) sleep(1);
    fclose(fopen(path, "w"));
  }
  if (strcmp(it->how, "breach") == 0) h->skip(call, 0, (weir_str){ "no", 2 });
  if (strcmp(it->how, "foreign") == 0) { free(it); return WEIR_E_UNSUPPORTED; }
  *out = it;
  return WEIR_OK;
}
static weir_status info(void *handle, weir_call *call, const weir_facts **out) {
  file_t *it = handle;
  (void)call;
  it->levels[0] = (weir_level){ 64, 48, 1.0, 16, 16 };
  it->levels[1] = (weir_level){ 32, 24, 2.0, 16, 16 };
  it->picture = (weir_picture){ { "label", 5 }, 3, 2 };
  it->key = (weir_property){ { "sins.key", 8 }, { "value", 5 } };
  it->facts = (weir_facts){ sizeof it->facts, WEIR_MPP_VENDOR, { "sin", 3 }, { "nobody", 6 }, 0.5, 0.5, it->levels, &it->picture, &it->key, 2, 1, 1, 0 };
  *out = &it->facts;
  return WEIR_OK;
}
static weir_status read_region(void *handle, weir_call *call, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height, uint8_t *into, size_t pitch) {
  file_t *it = handle;
  self_t me = { 0 };
  memcpy(me.how, it->how, sizeof me.how);
  if (it->panicked) abort();
  if (level == 0 && x <= 20 && 20 < x + width && y <= 10 && 10 < y + height) {
    if (is(&me, "panic")) { it->panicked = 1; return WEIR_E_PANIC; }
    if (is(&me, "fail")) return WEIR_E_FAIL;
    if (is(&me, "once")) for (;;) sleep(1);
    sins(&me, call, into, pitch * height, into);
  }
  for (uint32_t r = 0; r < height; r++)
    for (uint32_t c = 0; c < width; c++)
      for (int k = 0; k < 3; k++) into[r * pitch + 3 * c + k] = (uint8_t)((x + c) * 3 + (y + r) * 5 + level * 7 + k);
  return WEIR_OK;
}
static weir_status picture(void *handle, weir_call *call, uint32_t i, uint8_t *into, size_t pitch) {
  (void)handle, (void)call, (void)pitch;
  memset(into, 9 + (int)i, 18);
  return WEIR_OK;
}
static void close_file(void *handle) {
  file_t *it = handle;
  if (it->panicked) abort();
  if (strcmp(it->how, "breach") == 0) {
    strcat(it->path, ".closed");
    fclose(fopen(it->path, "w"));
  }
  free(it);
}
static const weir_reader reader = { sizeof reader, WEIR_READER_PARALLEL, "sins", sniff, open_file, info, read_region, picture, close_file };
static const weir_reader *const readers[] = { &reader };

#define EVERY sizeof(weir_stage), 0
static const weir_stage pass_stage = { sizeof(weir_stage), WEIR_STAGE_PARALLEL, "sins.pass", create, destroy, NULL, NULL, pass, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage invert_stage = { EVERY, "sins.invert", create, destroy, NULL, NULL, invert, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage mean_stage = { EVERY, "sins.mean", create, destroy, NULL, NULL, mean, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage pool_stage = { EVERY, "sins.pool", create, destroy, NULL, NULL, add, take, sums, forget, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage once_stage = { EVERY, "sins.once", create, destroy, NULL, NULL, add, NULL, sums, forget, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage write_stage = { EVERY, "sins.write", create, destroy, NULL, NULL, add, take, noted, forget, NULL, NULL, NULL, NULL, NULL, NULL };
static const weir_stage source_stage = { EVERY, "sins.source", create, destroy, NULL, NULL, NULL, NULL, NULL, NULL, NULL, listed, opened, next, fill, shut };
static const weir_stage *const stages[] = { &pass_stage, &invert_stage, &mean_stage, &pool_stage, &once_stage, &write_stage, &source_stage };
static const weir_plugin plugin = { .struct_size = sizeof plugin, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = stages, .n_stages = 7, .readers = readers, .n_readers = 1 };
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *h, weir_call *call, const weir_plugin **out) {
  (void)call;
  host = h;
  *out = &plugin;
  return WEIR_OK;
}
