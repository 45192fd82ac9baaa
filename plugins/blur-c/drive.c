/* A host of a few functions that runs blur-c over odd tiles, to be built with sanitizers: every row in memory of its own, exactly as
 * long as it must be. Prints a line a tile: width, height, whether it was kept. */
#include "weir_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weir_call {
  int kept, skipped, failed;
};

static void note_fail(weir_call *call, const weir_error *error) {
  call->failed++;
  printf("failed: %.*s\n", (int)error->message.len, error->message.ptr);
}

static weir_status note_pass(weir_call *call, uint32_t port, const uint32_t *rows, uint32_t n_rows) {
  (void)port;
  (void)rows;
  call->kept += (int)n_rows;
  return WEIR_OK;
}

static weir_status note_skip(weir_call *call, uint32_t row, weir_str reason) {
  (void)row;
  if (reason.len != 7 || memcmp(reason.ptr, "blurred", 7) != 0) {
    return WEIR_E_USE;
  }
  call->skipped++;
  return WEIR_OK;
}

int main(void) {
  static const int64_t sizes[][2] = {{1, 1}, {2, 2}, {3, 3}, {1, 40}, {40, 1}, {17, 5}, {256, 256}};
  weir_host host = {.struct_size = sizeof host, .abi_minor = WEIR_ABI_MINOR, .version = "drive"};
  weir_call call = {0, 0, 0};
  const weir_plugin *plugin = NULL;
  weir_value limit = {.kind = WEIR_FLOAT, .f = 15.0};
  void *self = NULL;
  host.fail = note_fail;
  host.pass = note_pass;
  host.skip = note_skip;
  if (weir_plugin_v1(&host, &call, &plugin) != WEIR_OK || plugin->n_stages != 1) {
    return 1;
  }
  const weir_stage *stage = plugin->stages[0];
  if (stage->create(&host, &call, &limit, 0, &self) != WEIR_E_FAIL || call.failed != 1) {
    return 2;
  }
  if (stage->create(&host, &call, &limit, 1, &self) != WEIR_OK) {
    return 3;
  }
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const int64_t width = sizes[i][0], height = sizes[i][1], shape[3] = {height, width, 3};
    uint8_t *noise = malloc((size_t)(width * height * 3)), *flat = malloc((size_t)(width * height * 3));
    if (noise == NULL || flat == NULL) {
      return 4;
    }
    void *const rows[2] = {noise, flat};
    uint32_t state = 1;
    for (int64_t at = 0; at < width * height * 3; at++) {
      state = state * 1664525u + 1013904223u;
      noise[at] = (uint8_t)(state >> 24);
      flat[at] = 200;
    }
    const weir_column column = {
        .name = {"pixels", 6}, .rows = rows, .shape = shape, .device = {1, 0}, .dtype = {1, 8, 1}, .ndim = 3};
    const weir_row places[2] = {{.x = 0}, {.x = width}};
    const weir_batch batch = {
        .struct_size = sizeof batch, .n_rows = 2, .n_columns = 1, .rows = places, .columns = &column};
    call.kept = call.skipped = call.failed = 0;
    const weir_status status = stage->process(self, &call, 0, &batch);
    printf("%d x %d: status %d, %d kept, %d skipped\n", (int)width, (int)height, (int)status, call.kept, call.skipped);
    if (status != WEIR_OK || call.kept + call.skipped != 2 || call.kept != (width > 3 && height > 3)) {
      return 5;
    }
    free(noise);
    free(flat);
  }
  stage->destroy(self);
  return 0;
}
