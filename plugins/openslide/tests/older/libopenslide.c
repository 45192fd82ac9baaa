/* An OpenSlide that says a version and knows no file: what 3.4.1 is to a DICOM slide, on any machine. */
#include <stddef.h>
#include <stdint.h>

#define PUBLIC __attribute__((visibility("default")))

PUBLIC const char *openslide_get_version(void) { return VERSION; }
PUBLIC const char *openslide_detect_vendor(const char *path) { return (void)path, NULL; }
PUBLIC void *openslide_open(const char *path) { return (void)path, NULL; }
PUBLIC void openslide_close(void *slide) { (void)slide; }
PUBLIC const char *openslide_get_error(void *slide) { return (void)slide, NULL; }
PUBLIC int32_t openslide_get_level_count(void *slide) { return (void)slide, -1; }
PUBLIC void openslide_get_level_dimensions(void *slide, int32_t level, int64_t *w, int64_t *h) { (void)slide, (void)level, *w = *h = -1; }
PUBLIC double openslide_get_level_downsample(void *slide, int32_t level) { return (void)slide, (void)level, -1.0; }
PUBLIC void openslide_read_region(void *slide, uint32_t *into, int64_t x, int64_t y, int32_t level, int64_t w, int64_t h) {
  (void)slide, (void)into, (void)x, (void)y, (void)level, (void)w, (void)h;
}
PUBLIC const char *const *openslide_get_property_names(void *slide) { return (void)slide, NULL; }
PUBLIC const char *openslide_get_property_value(void *slide, const char *name) { return (void)slide, (void)name, NULL; }
PUBLIC const char *const *openslide_get_associated_image_names(void *slide) { return (void)slide, NULL; }
PUBLIC void openslide_get_associated_image_dimensions(void *slide, const char *name, int64_t *w, int64_t *h) {
  (void)slide, (void)name, *w = *h = -1;
}
PUBLIC void openslide_read_associated_image(void *slide, const char *name, uint32_t *into) { (void)slide, (void)name, (void)into; }
