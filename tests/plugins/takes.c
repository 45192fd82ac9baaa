/* Sinks of what weir's own sinks do not take, a line a row: for tests that look at what other plugins made. */
#include "weir_plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SINK(kind, more) "{\"id\":\"takes." kind "\",\"summary\":\"Writes " kind "\",\"rows\":\"sink\",\"params\":[{\"name\":\"as\",\"type\":\"string\",\"required\":true,\"doc\":\"Ending of its files\"}],\"in\":[{\"name\":\"rows\",\"kind\":\"" kind "\"" more "}]}"
WEIR_MANIFEST("{\"weir-abi\":\"1.0\",\"name\":\"takes\",\"version\":\"1.0.0\",\"summary\":\"Writes rows\",\"stages\":[" SINK("picks", "") "," SINK("table", "") "," SINK("features", ",\"shape\":[2]") "]}");

enum { LINE = 256, MOST = 1024 };
typedef struct { const weir_host *host; char kind, as[32]; uint32_t n; uint64_t slide[MOST], tile[MOST]; char lines[MOST][LINE]; } sink;

static weir_status create(const weir_host *host, const weir_value *values, void **self, char kind) {
  sink *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  snprintf(it->as, sizeof it->as, "%.*s", (int)values[0].s.len, values[0].s.ptr);
  it->host = host, it->kind = kind;
  *self = it;
  return WEIR_OK;
}
#define CREATE(name, kind)                                                                                                     \
  static weir_status name(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {          \
    (void)call;                                                                                                                 \
    return n == 1 ? create(host, values, self, kind) : WEIR_E_PARAM;                                                                                            \
  }
CREATE(picks, 'p')
CREATE(table, 't')
CREATE(features, 'f')
static void destroy(void *self) { free(self); }

static void forget(sink *it, uint64_t slide, const uint64_t *tile) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < it->n; i++) {
    if (it->slide[i] == slide && (!tile || it->tile[i] == *tile)) continue;
    it->slide[n] = it->slide[i], it->tile[n] = it->tile[i];
    memmove(it->lines[n++], it->lines[i], LINE);
  }
  it->n = n;
}
static weir_status take(void *self, weir_call *call, uint32_t port, const weir_batch *in) {
  sink *it = self;
  (void)call, (void)port;
  for (uint32_t i = 0; i < in->n_rows; i++) {
    const weir_row *row = &in->rows[i];
    const weir_column *first = in->columns;
    const float *numbers = first->rows[i];
    forget(it, row->key.slide, &row->key.tile);
    if (it->n == MOST) return WEIR_E_MEMORY;
    it->slide[it->n] = row->key.slide, it->tile[it->n] = row->key.tile;
    char *line = it->lines[it->n++];
    const int whole = row->key.tile == WEIR_TILE_SLIDE;
    const int at = snprintf(line, LINE, "%lld %lld ", whole ? -1LL : (long long)row->x, whole ? -1LL : (long long)row->y);
    if (it->kind == 't') snprintf(line + at, LINE - (size_t)at, "%.*s", (int)first->lengths[i], (const char *)first->rows[i]);
    else if (it->kind == 'p') snprintf(line + at, LINE - (size_t)at, "%g", (double)numbers[0]);
    else snprintf(line + at, LINE - (size_t)at, "%g %g", (double)numbers[0], (double)numbers[1]);
  }
  return WEIR_OK;
}
static weir_status gone(void *self, weir_call *call, uint32_t port, const weir_row *rows, uint32_t n) {
  (void)call, (void)port;
  for (uint32_t i = 0; i < n; i++) forget(self, rows[i].key.slide, &rows[i].key.tile);
  return WEIR_OK;
}
static int by_text(const void *a, const void *b) { return strcmp(a, b); }
static weir_status ends(void *self, weir_call *call, const weir_slide *of, uint32_t rev, uint32_t end) {
  sink *it = self;
  char path[4096];
  uint32_t n = 0;
  (void)rev, (void)end;
  const weir_str folder = it->host->folder(call);
  snprintf(path, sizeof path, "%.*s/%.*s.%s.txt", (int)folder.len, folder.ptr, (int)of->id.len, of->id.ptr, it->as);
  char(*lines)[LINE] = calloc(it->n + 1, LINE);
  FILE *file = lines ? fopen(path, "w") : NULL;
  if (!file) return free(lines), WEIR_E_FAIL;
  for (uint32_t i = 0; i < it->n; i++)
    if (it->slide[i] == of->number) memcpy(lines[n++], it->lines[i], LINE);
  qsort(lines, n, LINE, by_text);
  for (uint32_t i = 0; i < n; i++) fprintf(file, "%s\n", lines[i]);
  free(lines);
  return fclose(file) ? WEIR_E_FAIL : WEIR_OK;
}
static void closes(void *self, uint64_t slide) { forget(self, slide, NULL); }

#define STAGE(name, make) {.struct_size = sizeof(weir_stage), .id = name, .create = make, .destroy = destroy, .process = take, .remove = gone, .complete_slide = ends, .close_slide = closes}
static const weir_stage SINKS[] = {STAGE("takes.picks", picks), STAGE("takes.table", table), STAGE("takes.features", features)};
static const weir_stage *const STAGES[] = {&SINKS[0], &SINKS[1], &SINKS[2]};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 3};

weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host, (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
