/* A plugin that breaks one rule at one tile, by name: for the tests of what a host survives. */
#include "weir_plugin.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PARAMS                                                                                                              \
  "\"params\":[{\"name\":\"sin\",\"type\":\"choice\",\"default\":\"none\",\"doc\":\"Which rule is broken\",\"values\":["        \
  "\"none\",\"fail\",\"silent\",\"retry\",\"status\",\"lost\",\"twice\",\"both\",\"complete\",\"row\",\"port\",\"null\","         \
  "\"nan\",\"panic\",\"abort\",\"segfault\",\"exit\",\"loop\",\"overrun\",\"leak\",\"late\"]},"                                   \
  "{\"name\":\"slide\",\"type\":\"string\",\"default\":\"a\",\"doc\":\"At the first tile of which slide\"}]"
#define TILES "\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\""

WEIR_MANIFEST("{\"weir-abi\":\"1.0\",\"name\":\"sin\",\"version\":\"0.1.0\",\"summary\":\"Breaks rules\",\"stages\":["
              "{\"id\":\"sin.map\",\"summary\":\"Hands tiles on\",\"rows\":\"map\",\"in\":[{" TILES "}],\"out\":[{" TILES "}]," PARAMS
              "},"
              "{\"id\":\"sin.score\",\"summary\":\"Scores by brightness\",\"rows\":\"map\",\"in\":[{" TILES "}],\"out\":["
              "{\"name\":\"scores\",\"kind\":\"scores\",\"shape\":[\"height\",\"width\",2],\"mpp\":\"mpp\"}]," PARAMS "}]}");

static const char *const NAMES[] = {"none", "fail", "silent", "retry", "status",  "lost", "twice", "both",    "complete", "row", "port",
                                    "null", "nan",  "panic",  "abort", "segfault", "exit", "loop",  "overrun", "leak",     "late"};
enum { NONE, FAIL, SILENT, RETRY, STATUS, LOST, TWICE, BOTH, COMPLETE, ROW, PORT, NULL_BATCH, NOT_A_NUMBER, PANIC, ABORT, SEGFAULT, EXIT, LOOP, OVERRUN, LEAK, LATE };

typedef struct {
  const weir_host *host;
  int sin, score;
  char slide[64];
} stage;

static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }

static weir_status create(const weir_host *host, const weir_value *values, uint32_t n, void **self, int score) {
  stage *it = calloc(1, sizeof *it);
  if (!it || n != 2) return WEIR_E_MEMORY;
  it->host = host;
  it->score = score;
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

static void destroy(void *self) { free(self); }

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
    const int here = row->x == 0 && row->y == 0 && slide->id.len == strlen(it->slide) && !memcmp(slide->id.ptr, it->slide, slide->id.len);
    if (here && it->sin != NONE) sinner = i;
    if (here && it->sin == LOST) continue;
    kept[n++] = i;
  }
  const int sins = sinner != UINT32_MAX;
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
      case FAIL:
        host->fail(call, &(weir_error){text("the tile is cursed"), text(""), text("lift the curse")});
        return WEIR_E_FAIL;
      case SILENT: return WEIR_E_FAIL;
      case RETRY: return WEIR_E_RETRY;
      case STATUS: return 77;
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
      case PANIC: host->fail(call, &(weir_error){text("src/lib.rs:1: on purpose"), text(""), text("")}); return WEIR_E_PANIC;
      case ABORT: abort();
      case SEGFAULT: *(volatile int *)(uintptr_t)8 = 1; break;
      case EXIT: _exit(3);
      case LOOP:
        for (volatile int on = 1; on;) usleep(1000);
        break;
      case OVERRUN: {
        weir_batch *edit = host->batch_edit(call, 0);
        if (!edit) return WEIR_E_FAIL;
        uint8_t *pixels = edit->columns[0].rows[sinner];
        for (size_t k = 0; k < (size_t)64 << 20; k++) pixels[k] = 7;
        host->batch_release(edit);
        break;
      }
      case LEAK: host->batch_retain(batch); break;
      case LATE: {
        pthread_t thread;
        pthread_create(&thread, NULL, later, batch->columns[0].rows[sinner]);
        break;
      }
      default: break;
    }
  return it->score ? host->emit(call, 0, out) : host->pass(call, 0, kept, n);
}

static const weir_stage MAP = {.struct_size = sizeof MAP, .flags = WEIR_STAGE_DETERMINISTIC, .id = "sin.map", .create = create_map, .destroy = destroy, .process = process};
static const weir_stage SCORE = {.struct_size = sizeof SCORE, .flags = WEIR_STAGE_DETERMINISTIC, .id = "sin.score", .create = create_score, .destroy = destroy, .process = process};
static const weir_stage *const STAGES[] = {&MAP, &SCORE};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 2};

weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host;
  (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
