/*
 * vocabtailor_test.h - what only tests call. Not installed, and free to change with every version.
 */
#ifndef VOCABTAILOR_TEST_H
#define VOCABTAILOR_TEST_H

#include "vocabtailor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* -- declarations: plain C, read as they stand by the tests -- */

typedef struct vt_scan_hit {
    int32_t row;
    int32_t state;
    float   value; /* logit */
} vt_scan_hit;

/* every (row, state) whose logit is at least thresholds[state], by row, then state; writes up to n_hits, *n is their number
 * in any case. type: a ggml_type that find_scan_format knows; rows: (n_rows, n_embd) of that type; hidden: (n_hidden, n_embd)
 * f32, at most 16 states; whole_states: do not round them to the type of the rows, where that is one of floats;
 * kernel: a name of vt_scan_kernel, or NULL for the best. margins: (n_hidden,), NULL or the bound of each state on |value - ggml's logit|. */
vt_status vt_scan(const char * kernel, int32_t type, const uint8_t * rows, int64_t n_rows, int64_t n_embd, const float * hidden, size_t n_hidden,
                  int32_t whole_states, const float * thresholds, int32_t n_threads, vt_scan_hit * hits, size_t n_hits, size_t * n, float * margins,
                  char * err, size_t n_err);

/* -- end of declarations -- */

#ifdef __cplusplus
}
#endif

#endif
