/* blur-c: leaves blurred tiles out. A plugin in plain C11 with nothing but weir_plugin.h.
 *
 * A tile's sharpness is the variance of the Laplacian of its luma:
 *
 *     Y(x, y) = (299 R + 587 G + 114 B) / 1000                                         luma, BT.601, 0 to 255
 *     L(x, y) = Y(x-1, y) + Y(x+1, y) + Y(x, y-1) + Y(x, y+1) - 4 Y(x, y)              inner pixels only
 *     sharpness = mean(L^2) - mean(L)^2                                                 grey values squared
 *
 * Luma, L and each line's sums are whole numbers, in thousandths; lines are added from top to bottom: the same tile has the same
 * sharpness to the bit, whatever its batch. */
#include "weir_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

WEIR_MANIFEST(
    "{\"weir-abi\":\"1.0\",\"name\":\"blur-c\",\"version\":\"0.1.0\",\"licence\":\"MIT OR Apache-2.0\","
    "\"summary\":\"Leaves blurred tiles out; plain C\",\"stages\":[{\"id\":\"blur-c.filter\",\"rows\":\"filter\","
    "\"summary\":\"Leaves blurred tiles out, by the variance of the Laplacian of their luma.\","
    "\"doc\":\"A tile is left out, with the reason `blurred`, when its sharpness is below `sharpness-min`: the variance, over its "
    "inner pixels, of the Laplacian (4 neighbours minus 4 times the pixel) of its luma (0.299 R + 0.587 G + 0.114 B, 0 to 255). "
    "A tile without inner pixels has sharpness 0.\","
    "\"concurrency\":\"parallel\",\"example\":\"[stage.sharp]\\nuse = \\\"blur-c.filter\\\"\\nin = \\\"tiles\\\"\\nsharpness-min = 25.0\","
    "\"params\":[{\"name\":\"sharpness-min\",\"type\":\"float\",\"default\":15.0,\"min\":0.0,\"max\":1040400.0,"
    "\"doc\":\"Least variance of the Laplacian that is kept, in grey values squared.\"}],"
    "\"in\":[{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\"}],"
    "\"out\":[{\"name\":\"tiles\",\"kind\":\"pixels\",\"shape\":[\"height\",\"width\",3],\"mpp\":\"mpp\"}]}]}");

typedef struct {
  const weir_host *host;
  double sharpness_min;
} blur;

static weir_str text(const char *it) {
  weir_str str = {it, strlen(it)};
  return str;
}

static weir_status refuse(const weir_host *host, weir_call *call, weir_status status, const char *what) {
  weir_error error = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
  error.message = text(what);
  host->fail(call, &error);
  return status;
}

static weir_status create(const weir_host *host, weir_call *call, const weir_value *values, uint32_t n_values, void **self) {
  blur *it;
  if (n_values != 1 || values[0].kind != WEIR_FLOAT) {
    return refuse(host, call, WEIR_E_FAIL, "the host gave other values than the manifest's parameters");
  }
  it = malloc(sizeof *it);
  if (it == NULL) {
    return refuse(host, call, WEIR_E_MEMORY, "out of memory");
  }
  it->host = host;
  it->sharpness_min = values[0].f;
  *self = it;
  return WEIR_OK;
}

static void destroy(void *self) { free(self); }

/* Luma of a row of pixels, times 1000: 0 to 255000. */
static void luma(const uint8_t *rgb, int64_t width, int32_t *out) {
  for (int64_t x = 0; x < width; x++) {
    out[x] = 299 * rgb[3 * x] + 587 * rgb[3 * x + 1] + 114 * rgb[3 * x + 2];
  }
}

/* The sharpness of interleaved RGB, dense. `lines` has room for 3 * width numbers. |L| is at most 1.02e6 thousandths, so the squares
 * of a line fit 64 bits up to 17 million px. */
static double sharpness(const uint8_t *rgb, int64_t width, int64_t height, int32_t *lines) {
  int32_t *above = lines, *here = lines + width, *below = lines + 2 * width;
  const int64_t n = (width - 2) * (height - 2);
  double sum = 0, squares = 0, mean;
  if (width < 3 || height < 3) {
    return 0;
  }
  luma(rgb, width, above);
  luma(rgb + 3 * width, width, here);
  for (int64_t y = 1; y + 1 < height; y++) {
    int64_t row_sum = 0;
    uint64_t row_squares = 0;
    int32_t *reused = above;
    luma(rgb + 3 * width * (y + 1), width, below);
    for (int64_t x = 1; x + 1 < width; x++) {
      const int64_t l = (int64_t)here[x - 1] + here[x + 1] + above[x] + below[x] - 4 * (int64_t)here[x];
      row_sum += l;
      row_squares += (uint64_t)(l * l);
    }
    sum += (double)row_sum;
    squares += (double)row_squares;
    above = here;
    here = below;
    below = reused;
  }
  mean = sum / (double)n;
  /* Back from thousandths. */
  return (squares / (double)n - mean * mean) / 1e6;
}

static const weir_column *find(const weir_batch *batch, const char *name) {
  for (uint32_t i = 0; i < batch->n_columns; i++) {
    const weir_column *column = &batch->columns[i];
    if (column->name.len == strlen(name) && memcmp(column->name.ptr, name, column->name.len) == 0) {
      return column;
    }
  }
  return NULL;
}

/* Interleaved RGB of one byte a value, side by side, in memory that a processor reads. */
static int is_dense_rgb(const weir_column *column) {
  const int64_t *shape = column->shape, *strides = column->strides;
  return column->dtype.code == 1 && column->dtype.bits == 8 && column->dtype.lanes == 1 && column->ndim == 3 && shape[0] > 0 &&
         shape[1] > 0 && shape[2] == 3 && (column->device.type == 1 || column->device.type == 3) &&
         (strides == NULL || (strides[0] == 3 * shape[1] && strides[1] == 3 && strides[2] == 1));
}

static weir_status process(void *self, weir_call *call, uint32_t port, const weir_batch *batch) {
  const blur *it = self;
  const weir_host *host = it->host;
  const weir_column *pixels = find(batch, "pixels");
  weir_status status = WEIR_OK;
  int32_t *lines;
  (void)port;
  if (pixels == NULL || !is_dense_rgb(pixels)) {
    return refuse(host, call, WEIR_E_FAIL, "the tiles are not interleaved RGB of 8 bits in the processor's memory");
  }
  lines = malloc((size_t)pixels->shape[1] * 3 * sizeof *lines);
  if (lines == NULL) {
    return refuse(host, call, WEIR_E_MEMORY, "out of memory");
  }
  for (uint32_t row = 0; row < batch->n_rows && status == WEIR_OK; row++) {
    const double is = sharpness(pixels->rows[row], pixels->shape[1], pixels->shape[0], lines);
    status = is < it->sharpness_min ? host->skip(call, row, text("blurred")) : host->pass(call, 0, &row, 1);
  }
  free(lines);
  return status;
}

static const weir_stage filter = {
    .struct_size = sizeof(weir_stage),
    .flags = WEIR_STAGE_PARALLEL | WEIR_STAGE_DETERMINISTIC,
    .id = "blur-c.filter",
    .create = create,
    .destroy = destroy,
    .process = process,
};

static const weir_stage *const stages[] = {&filter};

static const weir_plugin plugin = {
    .struct_size = sizeof(weir_plugin),
    .abi_minor = WEIR_ABI_MINOR,
    .manifest = weir_manifest,
    .stages = stages,
    .n_stages = 1,
};

weir_status weir_plugin_v1(const weir_host *host, weir_call *call, const weir_plugin **out) {
  (void)host;
  (void)call;
  *out = &plugin;
  return WEIR_OK;
}
