/* The plugin ABI of weir, version 1.0: stages and slide readers in a shared library.
 *
 * This header is the specification; it includes nothing but two headers of C11 and needs no library. A plugin exports one
 * symbol, weir_plugin_v1, and carries its description (JSON: stages, ports, parameters) in the ELF section .weir.manifest, so
 * that weir knows what a library holds without running any of it; in a language without sections NAME.manifest.json lies beside
 * libNAME.so instead. plugins/sdk/README.md shows a plugin of forty lines, plugins/README.md says what stands in the
 * description.
 *
 * Words in [brackets] say when a function may be called:
 *   [setup]       one call at a time, on any thread, before anything flows or after everything did; create() also later, while
 *                 other instances work: for one more open slide, or in the place of an instance that panicked or was given up
 *   [work]        on any worker thread, while the stage runs; weir_stage.flags and the manifest say how many at once: "serial" is
 *                 one over all instances of a process
 *   [any-thread]  from any thread, as long as the named object lives
 *
 * Rules that hold for every function:
 *   - Nothing unwinds across the boundary: no Rust panic, no C++ exception, no longjmp.
 *   - Strings are UTF-8 with a length, not terminated, unless the type is const char *.
 *   - Who allocates frees. What the host hands over lives until the function returns unless its line says otherwise; what a
 *     plugin hands over lives at least as long.
 *   - The host never unloads a plugin; an instance ends with destroy().
 *   - Structs that begin with struct_size only ever grow at their end; struct_size says how much of one exists. The others
 *     never change. A reserved member is zero.
 *   - Members of function type may be NULL where their line says "optional". */
#ifndef WEIR_PLUGIN_H
#define WEIR_PLUGIN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define WEIR_ABI_MAJOR 1
#define WEIR_ABI_MINOR 0

/* True when a struct of the other side has the member: WEIR_HAS(weir_host, host, wake). */
#define WEIR_HAS(type, object, member) (offsetof(type, member) + sizeof((object)->member) <= (object)->struct_size)

typedef struct { const char *ptr; size_t len; } weir_str;

/* ------------------------------------------------------------------------------------------------------------ status -- */

typedef int32_t weir_status;
#define WEIR_OK               0  /* done                                                                                   */
#define WEIR_PENDING          1  /* process() only: the plugin keeps the call and ends it with host->complete()            */
#define WEIR_IDLE             2  /* next() only: nothing yet; the host asks again within some milliseconds                 */
#define WEIR_END              3  /* slide(), next(): nothing more, ever                                                    */
#define WEIR_E_FAIL         (-1) /* this cannot be done: rows are tried alone, then what fails is a failed tile            */
#define WEIR_E_RETRY        (-2) /* the same call may succeed later: a busy device, a lost link; what hosts do stands below */
#define WEIR_E_PARAM        (-3) /* create() only: a parameter is unusable; weir_error says which                          */
#define WEIR_E_MEMORY       (-4) /* out of memory, the host's or a device's                                                */
#define WEIR_E_CANCELLED    (-5) /* the run is being stopped                                                               */
#define WEIR_E_PANIC        (-6) /* only the SDKs' guards return it: the instance is used no more                          */
#define WEIR_E_UNSUPPORTED  (-7) /* read_region(), picture(): this slide has no such thing                                 */
#define WEIR_E_USE          (-8) /* host functions only: called against the rules; the host has said so in its log         */
/* What hosts of 1.0 make of WEIR_E_RETRY: read_region() is tried again. Of process() of a map or a filter it is WEIR_E_FAIL: rows
 * are tried alone, and once more as often as the user's `run.retries` says. Of any other function it is a failure as others are. */

typedef struct {
  weir_str message;      /* one sentence, lower case, no full stop                                                         */
  weir_str param;        /* the parameter at fault, or empty: the host marks it in the user's file                         */
  weir_str help;         /* what to do about it, or empty                                                                  */
} weir_error;

/* -------------------------------------------------------------------------------------------------------------- rows -- */

/* A version of a tile. `slide` is a number within this run, `tile` a word whose order breaks ties; both are names, not
 * numbers to compute with: where a tile lies says weir_row. `source` is, of a selected tile, the revision of its pixels. */
typedef struct { uint64_t slide, tile; uint32_t rev, source; } weir_key;

/* The word of what speaks of a slide as a whole: its bag, its prediction. */
#define WEIR_TILE_SLIDE UINT64_MAX

/* A row of a batch: which version, and where it lies. */
typedef struct {
  weir_key key;
  int64_t x, y;          /* top-left corner, level-0 px; may be negative                                                   */
  double footprint;      /* side of the square that the tile covers, level-0 px                                            */
  double mpp;            /* um/px of its pixels; 0: not known                                                              */
  uint32_t slide;        /* its slide's place in weir_batch.slides                                                         */
  uint32_t reserved;
} weir_row;

/* A slide. Strings may be empty; numbers that nobody knows are 0. */
typedef struct {
  uint32_t struct_size, reserved;
  uint64_t number;       /* weir_key.slide of its rows                                                                     */
  uint64_t seed;         /* the same in every run, by the digest of id: for seeds and ties                                 */
  weir_str id;           /* the name in the manifest, else the file's stem; unique in a run                                */
  weir_str path;         /* as the user wrote it                                                                           */
  weir_str patient, label, split;
  int64_t width, height; /* level-0 px                                                                                     */
  double mpp_x, mpp_y;   /* um/px of level 0                                                                               */
  uint64_t tiles;        /* tiles that the source sends, so far                                                            */
  double tile_footprint; /* side of what a tile covers, level-0 px: a source says it when it opens the slide               */
  double tile_mpp;       /* um/px of a tile's pixels                                                                       */
  uint32_t tile_px;      /* side of a tile, px                                                                             */
  uint32_t tile_reserved;
} weir_slide;

/* ----------------------------------------------------------------------------------------------------------- columns -- */

/* Both have the layout and the values of DLPack 1.x (DLDevice, DLDataType). */
typedef struct { int32_t type; int32_t id; } weir_device;                  /* 1 CPU, 2 CUDA, 3 pinned CPU                  */
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } weir_dtype; /* code 0 int, 1 uint, 2 float, 4 bfloat, 6 bool */

#define WEIR_COLUMN_WRITABLE 1u /* the plugin may write: it made the batch, or has it alone                                */

/* The values of a column, one a row of the batch. Rows need not lie together: each has its own pointer.
 *   kind of port   columns
 *   pixels         pixels u8 [height, width, 3], interleaved RGB
 *   scores         score f32 [], probabilities f32 [classes]
 *   picks          score f32 []
 *   features       features f32 [d]
 *   attention      logit, weight, contribution, without f32 []
 *   bag            pooled f32 [d], effective, entropy f32 [], members u64 [], flags u32 []
 *   predictions    logits, probabilities f32 [classes], class i32 []  (-1: none)
 *   table          bytes u8 [-1]: `lengths` says how many a row has */
typedef struct {
  weir_str name;
  void *const *rows;        /* 16-byte aligned where the host allocated them                                               */
  const int64_t *shape;     /* of a row, ndim numbers; -1: see lengths                                                     */
  const int64_t *strides;   /* in elements, ndim numbers; NULL: dense, row-major                                           */
  const uint64_t *lengths;  /* elements of each row along the dimension that is -1; NULL where there is none               */
  int64_t pitch;            /* bytes from one row to the next where all lie equally far apart, else 0                      */
  weir_device device;
  weir_dtype dtype;
  int32_t ndim;             /* without the rows                                                                            */
  uint32_t flags;
  uint32_t reserved;
} weir_column; /* hosts of 1.0 give dense rows in the CPU's memory: strides is NULL, device is 1, 0                       */

/* Rows of one port; they mix slides. Immutable once emitted. */
typedef struct {
  uint32_t struct_size;
  uint32_t n_rows, n_columns, n_slides;
  const weir_row *rows;
  const weir_column *columns;
  const weir_slide *const *slides;
} weir_batch;

/* -------------------------------------------------------------------------------------------------------- parameters -- */

/* Checked by the host against the manifest and in its order. */
#define WEIR_UNSET  0u   /* optional, without a default, not given                                                         */
#define WEIR_BOOL   1u   /* i is 0 or 1                                                                                    */
#define WEIR_INT    2u   /* i; also of bytes ("64MiB"), durations ("5s", ns), and a choice's place, with its text in s     */
#define WEIR_FLOAT  3u   /* f                                                                                              */
#define WEIR_STRING 4u   /* s; also of paths, which are absolute                                                           */
#define WEIR_LIST   5u   /* n items                                                                                        */
/* Of type "slides" comes a list of what the host found for what the user named (files, folders, patterns, manifests), sorted by
 * id. Each item is a WEIR_STRING: s is the file's path, f um/px of its level 0 as a manifest says it, else 0; its items are the
 * slide's id, patient, label and split, each a WEIR_STRING, empty where nobody says it.                                     */
typedef struct weir_value {
  uint32_t kind, n;
  int64_t i;
  double f;
  weir_str s;
  const struct weir_value *items;
} weir_value;

/* -------------------------------------------------------------------------------------------------------------- host -- */

/* One call into a plugin, until it returns or is completed: a name, not an address, and no later call has it again. */
typedef struct weir_call weir_call;

#define WEIR_LOG_ERROR 1
#define WEIR_LOG_WARN  2
#define WEIR_LOG_INFO  3
#define WEIR_LOG_DEBUG 4

/* Lives as long as the process, unchanged. */
typedef struct weir_host {
  uint32_t struct_size, abi_minor;
  const char *version;   /* "weir 0.1.0", for messages                                                                     */

  /* A named extension, a struct of its own: "weir.cuda/1", "weir.metrics/1". NULL: this host has it not.     [any-thread] */
  const void *(*extension)(const char *id);
  /* A line in the run's log; the host puts the stage's name before it.                                       [any-thread] */
  void (*log)(weir_call *, int32_t level, weir_str text);
  /* What went wrong; copied. Then return the status that fits.                                               [any-thread] */
  void (*fail)(weir_call *, const weir_error *);
  /* Whether the run is being stopped: ask in long loops.                                                     [any-thread] */
  int32_t (*cancelled)(weir_call *);

  /* A fresh batch of an output port, each column dense and writable, its content undefined. source[i] is the input row that
   * output row i is made of; each input row at most once a port. The memory was leased before process() was called. NULL on
   * failure. The caller has one reference. For maps and filters.                                             [any-thread] */
  weir_batch *(*batch_new)(weir_call *, uint32_t port, uint32_t n_rows, const uint32_t *source);
  /* The same for a reduce, in complete_slide(): rows of the slide that it speaks of, by their tiles (weir_key.tile of rows
   * that hold, or WEIR_TILE_SLIDE); of any kind but pixels, and tables (table()).                              [any-thread] */
  weir_batch *(*batch_for)(weir_call *, uint32_t port, uint64_t slide, uint32_t n_rows, const uint64_t *tiles);
  /* The input as a batch of an output port of the same type, to be changed: pixels only. The rows are copies, since a call
   * that fails is made again, row by row. NULL on failure. The caller has one reference.                     [any-thread] */
  weir_batch *(*batch_edit)(weir_call *, uint32_t port);
  /* Keeps a batch beyond the call in which it was handed over; every retain has its release. An input is lent: it is released
   * or emitted by nobody who has not retained it.                                                            [any-thread] */
  void (*batch_retain)(const weir_batch *);
  void (*batch_release)(const weir_batch *);

  /* Hands a batch on while the call is open. Consumes one reference, also on error. Never blocks.            [any-thread] */
  weir_status (*emit)(weir_call *, uint32_t port, weir_batch *);
  /* Hands input rows on as they are, without a copy, on an output port of the input's type.                  [any-thread] */
  weir_status (*pass)(weir_call *, uint32_t port, const uint32_t *rows, uint32_t n_rows);
  /* A row of a table port: bytes are copied. `source` is the input row (maps, filters); of a reduce UINT32_MAX, and the row
   * is the slide's.                                                                                          [any-thread] */
  weir_status (*table)(weir_call *, uint32_t port, uint32_t source, const void *bytes, size_t len);
  /* The input row is left out on purpose; the reason in a word or two, as "blurred". For filters: a row that is neither
   * emitted, nor skipped, nor failed is skipped without a reason; of a map it is a fault of the plugin.      [any-thread] */
  weir_status (*skip)(weir_call *, uint32_t row, weir_str reason);
  /* Nothing could be made of the input row: a failed tile with this message; the other rows go on.           [any-thread] */
  weir_status (*fail_row)(weir_call *, uint32_t row, const weir_error *);

  /* Ends a call that returned WEIR_PENDING or is about to, exactly once; the call is gone afterwards. A call that is not ended
   * within the stage's `run.timeout` fails: cancel() is called, what it was lent stays valid, and its instance is used no more
   * and not destroyed. Whoever names a call that is gone, here or in any other function, does no harm: it gets WEIR_E_USE, NULL,
   * an empty string or, of cancelled(), 1, and the log is told where it is known whose call it was.         [any-thread] */
  void (*complete)(weir_call *, weir_status);
  /* Reserved: next() of this slide has something again. Hosts of 1.0 ask again by themselves; this does nothing, and the key
   * that open() is given is NULL.                                                                            [any-thread] */
  void (*wake)(void *slide_key);
  /* The folder of the run's outputs, absolute; valid as long as the instance. While create(), complete_slide() or finish() is
   * under way.                                                                                               [any-thread] */
  weir_str (*folder)(weir_call *);
} weir_host;

/* ------------------------------------------------------------------------------------------------------------ stages -- */

#define WEIR_STAGE_PARALLEL      1u /* process() of one instance may run on several threads at once                        */
#define WEIR_STAGE_DETERMINISTIC 2u /* same rows, same bits, whatever their batch: `weir plugin check` holds it to it      */

#define WEIR_COMPLETE   0u /* everything came                                                                              */
#define WEIR_INCOMPLETE 1u /* the sender fell silent                                                                       */
#define WEIR_ABORTED    2u /* the slide failed, or the run was stopped                                                     */
#define WEIR_PROVISIONAL 3u /* more may come: a live run                                                                   */

/* What a source does next of a slide. Revisions and seals are the host's affair. */
#define WEIR_STEP_TILE  1u /* a tile that read() will fill: new, or with other pixels than before                          */
#define WEIR_STEP_GONE  2u /* the tile is withdrawn                                                                        */
#define WEIR_STEP_FAIL  3u /* the tile cannot be had; host->fail() said why                                                */
#define WEIR_STEP_CLOSE 4u /* what was sent since the last one belongs together                                            */
typedef struct {
  uint32_t struct_size, kind;
  int64_t x, y;            /* top-left corner, level-0 px                                                                  */
  uint32_t width, height;  /* of its pixels, px; of a source of features, width is the vector's                            */
} weir_step;

typedef struct weir_stage {
  uint32_t struct_size, flags;
  const char *id;        /* the manifest's; its kind, ports and parameters stand there                                     */

  /* ---- every stage ---- */
  /* [setup] values has one entry a parameter of the manifest. Instances: one, or one a worker where the manifest says so; of a
   * reduce or a sink without finish() one for each open slide, to which all calls about the slide go: one that panics takes no
   * other slide with it. After close_slide() another slide goes to it. */
  weir_status (*create)(const weir_host *, weir_call *, const weir_value *values, uint32_t n_values, void **self);
  /* [setup] no call is in flight and none will follow. */
  void (*destroy)(void *self);
  /* Reserved: a size of an output that the manifest left open. Hosts of 1.0 do not ask: sizes are numbers or parameters, so
   * that a file is checked without running anything. */
  weir_status (*resolve)(void *self, weir_call *, uint32_t port, const char *symbol, int64_t *size);
  /* [any-thread] optional: complete all pending calls soon. */
  void (*cancel)(void *self);

  /* ---- map, filter, reduce, sink ---- */
  /* [work] the batch is borrowed until the function returned and, of a pending one, the call is completed, whichever is later:
   * retain it to keep it longer. Only values come: what was skipped, has failed or was withdrawn never does. */
  weir_status (*process)(void *self, weir_call *, uint32_t port, const weir_batch *);

  /* ---- reduce, sink ---- */
  /* [work] these rows hold no more (withdrawn, failed, or replaced: then the new version comes by process()). A reduce whose
   * manifest says "batch-only" has NULL, and is not asked for live runs. */
  weir_status (*remove)(void *self, weir_call *, uint32_t port, const weir_row *rows, uint32_t n_rows);
  /* [work] everything of the slide up to generation `rev` was processed; `end` is one of the four above. A reduce emits its
   * rows of the slide now, all of them: what it emitted before and does not emit again is withdrawn. Called again when the
   * slide grows. */
  weir_status (*complete_slide)(void *self, weir_call *, const weir_slide *, uint32_t rev, uint32_t end);
  /* [work] optional: the slide's state may be dropped. */
  void (*close_slide)(void *self, uint64_t slide);
  /* [setup] optional, sinks: the run is over; tables that span slides are written now. All slides go to one instance of a stage
   * that has this. */
  weir_status (*finish)(void *self, weir_call *);

  /* ---- source ---- */
  /* [setup] slide number i in order, from 0 on; WEIR_END when there is none. The host copies what `out` points to; only id
   * and path must be there. */
  weir_status (*slide)(void *self, weir_call *, uint64_t i, weir_slide *out);
  /* [work] may take its time. `out` comes empty, only its struct_size is set: fill in what slide() gave, and size and um/px. The
   * host copies what it points to. slide_key is NULL. A failure ends this slide. */
  weir_status (*open)(void *self, weir_call *, uint64_t i, void *slide_key, weir_slide *out, void **slide);
  /* [work] returns at once: WEIR_OK with a step, WEIR_IDLE, or WEIR_END when the slide is complete. One call at a time a slide. */
  weir_status (*next)(void *slide, weir_call *, weir_step *out);
  /* [work] fills `into`, `len` bytes, with the tile's pixels or features: all of it, or an error. Several at once. */
  weir_status (*read)(void *slide, weir_call *, const weir_row *, void *into, size_t len);
  /* [work] no call of the slide is in flight and none will follow. */
  void (*close)(void *slide);
} weir_stage;

/* ----------------------------------------------------------------------------------------------------------- readers -- */

typedef struct {
  int64_t width, height;           /* px                                                                                   */
  double downsample;               /* level-0 px a px of this level                                                        */
  int64_t tile_width, tile_height; /* of a native tile, px; 0: none                                                        */
} weir_level;

typedef struct { weir_str name; int64_t width, height; } weir_picture; /* label, macro, thumbnail                          */
typedef struct { weir_str key, value; } weir_property;

/* Who said the size of a pixel. */
#define WEIR_MPP_UNKNOWN    0u
#define WEIR_MPP_VENDOR     1u
#define WEIR_MPP_RESOLUTION 2u
#define WEIR_MPP_OBJECTIVE  3u

/* What a reader found in a slide. */
typedef struct {
  uint32_t struct_size;
  uint32_t mpp_origin;
  weir_str format, vendor;         /* as "aperio-svs", "aperio"                                                            */
  double mpp_x, mpp_y;             /* um/px of level 0                                                                     */
  const weir_level *levels;        /* from the greatest to the smallest; at least one                                      */
  const weir_picture *pictures;
  const weir_property *properties; /* sorted by key                                                                        */
  uint32_t n_levels, n_pictures, n_properties, reserved;
} weir_facts;

#define WEIR_READER_PARALLEL 1u /* read_region() of one handle may run on several threads at once                          */
#define WEIR_READER_SPOILS   2u /* after an error the handle is of no use: the host closes it and opens another            */

typedef struct weir_reader {
  uint32_t struct_size, flags;
  const char *id;        /* the manifest's, as "openslide"                                                                 */
  /* [any-thread] from the name and the first bytes: 0 not mine, up to 100 surely mine. Reads nothing else. */
  int32_t (*sniff)(weir_str path, const uint8_t *head, size_t len);
  /* [work] the path is absolute. */
  weir_status (*open)(const weir_host *, weir_call *, weir_str path, void **handle);
  /* [work] what was found; lives as long as the handle. */
  weir_status (*info)(void *handle, weir_call *, const weir_facts **out);
  /* [work] fills `into`, rows `pitch` bytes apart, with width x height px of the level from (x, y), in px of that level:
   * interleaved RGB, exactly those pixels. What lies outside the slide is white. Damage is an error, never invented pixels. */
  weir_status (*read_region)(void *handle, weir_call *, uint32_t level, int64_t x, int64_t y, uint32_t width, uint32_t height,
                             uint8_t *into, size_t pitch);
  /* [work] optional: picture number i of the facts, whole, interleaved RGB, rows `pitch` bytes apart. */
  weir_status (*picture)(void *handle, weir_call *, uint32_t i, uint8_t *into, size_t pitch);
  /* [work] no call of the handle is in flight and none will follow. */
  void (*close)(void *handle);
} weir_reader;

/* ------------------------------------------------------------------------------------------------------------ plugin -- */

typedef struct weir_plugin {
  uint32_t struct_size, abi_minor;
  const char *manifest;  /* the very text of section .weir.manifest; this reference also keeps it linked. NULL without one */
  const weir_stage *const *stages;
  const weir_reader *const *readers;
  uint32_t n_stages, n_readers;
  /* Optional: a named extension of the plugin's, a struct of its own: "weir.describe/1". NULL: it has it not. [any-thread] */
  const void *(*extension)(const char *id);
} weir_plugin;

/* Extension "weir.cuda/1". The call's CUstream; its context is current. Inputs are ready in its order and the host records
 * the outputs' event on it after the call: enqueue and return, never synchronise. */
typedef struct { uint32_t struct_size; int32_t device; void *(*stream)(weir_call *); } weir_cuda_v1;

/* Extension "weir.metrics/1". Counters of the run's record: `by` is added to the stage's counter of this name. [any-thread] */
typedef struct { uint32_t struct_size, reserved; void (*count)(weir_call *, weir_str name, uint64_t by); } weir_metrics_v1;

/* A plugin's extension "weir.describe/1": what a file is to it, before anybody writes a pipeline (`weir plugin inspect`). Says so
 * by host->log() at WEIR_LOG_INFO, a line a call: what a model takes and gives. The path is absolute.              [setup] */
typedef struct {
  uint32_t struct_size, reserved;
  weir_status (*describe)(const weir_host *, weir_call *, weir_str path);
} weir_describe_v1;

#if defined(__GNUC__)
#define WEIR_EXPORT __attribute__((visibility("default")))
#define WEIR_MANIFEST(text) __attribute__((used, section(".weir.manifest"))) static const char weir_manifest[] = text
#else
#define WEIR_EXPORT
#endif

/* The one symbol. [setup], once a process, before anything else. `*out` lives as long as the process. */
WEIR_EXPORT weir_status weir_plugin_v1(const weir_host *, weir_call *, const weir_plugin **out);

#ifdef __cplusplus
}
#endif
#endif
