/* A plugin that has no section for its manifest, as one in a language without sections: silent.manifest.json lies beside it. Hands
 * on every tile that is not as bright as its parameter. */
#include <stdlib.h>

#include "weir_plugin.h"

typedef struct {
  const weir_host *host;
  double brightest;
} stage;

static weir_status create(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n, void **self) {
  (void)call;
  stage *it = n == 1 ? calloc(1, sizeof *it) : NULL;
  if (!it) return WEIR_E_MEMORY;
  *it = (stage){host, values[0].f};
  *self = it;
  return WEIR_OK;
}

static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  const stage *it = self;
  const weir_column *pixels = &batch->columns[0];
  const size_t bytes = (size_t)(pixels->shape[0] * pixels->shape[1] * pixels->shape[2]);
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    const uint8_t *from = pixels->rows[i];
    double sum = 0;
    for (size_t k = 0; k < bytes; k++) sum += from[k];
    const int bright = sum > it->brightest * (double)bytes;
    const weir_status said = bright ? it->host->skip(call, i, (weir_str){"bright", 6}) : it->host->pass(call, port, &i, 1);
    if (said != WEIR_OK) return said;
  }
  return WEIR_OK;
}

static const weir_stage DARK = {.struct_size = sizeof DARK, .flags = WEIR_STAGE_DETERMINISTIC, .id = "silent.dark", .create = create, .destroy = free, .process = process};
static const weir_stage *const STAGES[] = {&DARK};
static const weir_plugin PLUGIN = {.struct_size = sizeof PLUGIN, .abi_minor = WEIR_ABI_MINOR, .stages = STAGES, .n_stages = 1};
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host;
  (void)call;
  *out = &PLUGIN;
  return WEIR_OK;
}
