/* Says what there is to say: refuses a parameter by name, counts what it hands on, dies at a slide of a certain name. */
#include <stdlib.h>
#include <string.h>

#include "weir_plugin.h"

#define TILES "\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\""
WEIR_MANIFEST("{\"weir-abi\":\"1.0\",\"name\":\"speaks\",\"version\":\"1.0.0\",\"summary\":\"Speaks\",\"stages\":["
              "{\"id\":\"speaks.map\",\"summary\":\"Hands tiles on\",\"rows\":\"map\",\"params\":["
              "{\"name\":\"even\",\"type\":\"int\",\"default\":2,\"doc\":\"An even number\"},"
              "{\"name\":\"dies-at\",\"type\":\"string\",\"default\":\"\",\"doc\":\"Name of a slide\"}],"
              "\"in\":[{" TILES "}],\"out\":[{" TILES "}]}]}");

typedef struct {
  const weir_host *host;
  char slide[64];
} stage;

static weir_str text(const char *of) { return (weir_str){of, strlen(of)}; }

static weir_status create(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  if (n != 2) return WEIR_E_FAIL;
  if (values[0].i % 2) {
    host->fail(call, &(weir_error){text("it is odd"), text("even"), text("add one")});
    return WEIR_E_PARAM;
  }
  stage *it = calloc(1, sizeof *it);
  if (!it) return WEIR_E_MEMORY;
  it->host = host;
  const size_t most = sizeof it->slide - 1, len = values[1].s.len < most ? values[1].s.len : most;
  memcpy(it->slide, values[1].s.ptr, len);
  *self = it;
  return WEIR_OK;
}

static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  const stage *it = self;
  const weir_metrics_v1 *metrics = it->host->extension("weir.metrics/1");
  uint32_t rows[4096];
  if (batch->n_rows > 4096) return WEIR_E_FAIL;
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    const weir_slide *slide = batch->slides[batch->rows[i].slide];
    if (slide->id.len == strlen(it->slide) && !memcmp(slide->id.ptr, it->slide, slide->id.len)) abort();
    rows[i] = i;
  }
  if (metrics) metrics->count(call, text("handed on"), batch->n_rows);
  return it->host->pass(call, port, rows, batch->n_rows);
}

static const weir_stage MAP = {.struct_size = sizeof MAP, .flags = WEIR_STAGE_DETERMINISTIC, .id = "speaks.map", .create = create, .destroy = free, .process = process};
static const weir_stage *const STAGES[] = {&MAP};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .manifest = weir_manifest, .stages = STAGES, .n_stages = 1};
weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host;
  (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
