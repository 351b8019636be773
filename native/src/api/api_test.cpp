// What only tests call.

#include "api/api.h"
#include "scan/scan.h"
#include "vocabtailor_test.h"

#include <cstring>
#include <vector>

using namespace vt;

extern "C" {

VT_EXPORT vt_status vt_scan(const char * kernel, int32_t type, const uint8_t * rows, int64_t n_rows, int64_t n_embd, const float * hidden,
                            size_t n_hidden, int32_t whole_states, const float * thresholds, int32_t n_threads, vt_scan_hit * hits, size_t n_hits,
                            size_t * n, float * margins, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(rows != nullptr && hidden != nullptr && thresholds != nullptr && n != nullptr && (n_hits == 0 || hits != nullptr),
                "rows, hidden, thresholds, hits and n must not be NULL");
        require(n_embd > 0 && n_rows >= 0, "n_embd and n_rows must not be negative");
        const scan_kernel * chosen = nullptr;
        for (const scan_kernel * k : scan_kernels()) {
            chosen = chosen == nullptr && kernel != nullptr && strcmp(kernel, k->name) == 0 ? k : chosen;
        }
        require(kernel == nullptr || chosen != nullptr, "this CPU has no such kernel");
        const scan_format * f = find_scan_format(type);
        require(f != nullptr, "the scan does not know this type");
        const scan_matrix     m = {f, rows, n_rows, static_cast<size_t>(n_embd)};
        const scan_states     states(*f, m.n_embd, hidden, n_hidden, chosen, whole_states != 0);
        std::vector<scan_hit> found;
        scan(m, states, thresholds, n_threads, found);
        *n = found.size();
        for (size_t i = 0; i < found.size() && i < n_hits; i++) {
            hits[i] = {found[i].row, found[i].state, found[i].value};
        }
        if (margins != nullptr) {
            const double norm = scan_max_row_norm(m, n_threads);
            for (size_t i = 0; i < n_hidden; i++) {
                margins[i] = states.margin(i, norm);
            }
        }
    });
}

}  // extern "C"
