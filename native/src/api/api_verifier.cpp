// The C API: verifiers.

#include "api/api_objects.h"

using namespace vt;

static void copy_counts(const id_counts & from, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n) {
    require(n != nullptr && (n_ids == 0 || (ids != nullptr && counts != nullptr)), "ids, counts and n must not be NULL");
    size_t i = 0;
    for (const auto & entry : from) {
        if (i < n_ids) {
            ids[i]    = entry.first;
            counts[i] = entry.second;
        }
        i++;
    }
    *n = i;
}

extern "C" {

VT_EXPORT vt_status vt_verifier_new(const vt_verifier_params * params, vt_verifier ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(out != nullptr, "out must not be NULL");
        *out                       = nullptr;
        const vt_verifier_params p = read_params(params);
        require(p.session != nullptr && p.whole != nullptr && p.vocab != nullptr, "session, whole and vocab must not be NULL");
        require(p.session->store != nullptr && p.session->head != nullptr, "a verifier needs a session with a store and a head");
        require(p.session->store == p.whole->store, "the whole head belongs to another store");
        const lock s(p.session), h(p.session->head);
        require(p.session->impl.context() != nullptr, "no context is attached");
        *out = new vt_verifier(p);
    });
}

VT_EXPORT void vt_verifier_free(vt_verifier * v) {
    delete v;
}

VT_EXPORT vt_status vt_verifier_begin(vt_verifier * v, const struct llama_sampler * chain, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && chain != nullptr, "verifier and chain must not be NULL");
        const lock l(v), s(v->session), h(v->session->head);
        v->impl.begin(chain);
    });
}

VT_EXPORT vt_status vt_verifier_text_grammars(vt_verifier * v, bool are, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v);
        v->impl.set_text_grammars(are);
    });
}

VT_EXPORT vt_status vt_verifier_end(vt_verifier * v, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v), s(v->session);
        v->impl.end();
    });
}

VT_EXPORT vt_status vt_verifier_n_past(vt_verifier * v, int32_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && n != nullptr, "verifier and n must not be NULL");
        const lock l(v), s(v->session);
        *n = v->impl.n_past();
    });
}

VT_EXPORT vt_status vt_verifier_rewind(vt_verifier * v, int32_t pos, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v), s(v->session);
        v->impl.rewind(pos);
    });
}

VT_EXPORT vt_status vt_verifier_resume(vt_verifier * v, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v), s(v->session);
        v->impl.resume();
    });
}

VT_EXPORT vt_status vt_verifier_sample(vt_verifier * v, size_t n_left, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && token != nullptr, "verifier and token must not be NULL");
        const lock l(v), s(v->session), h(v->session->head);
        *token = v->impl.sample(n_left);
    });
}

VT_EXPORT vt_status vt_verifier_expect(vt_verifier * v, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && (tokens != nullptr || n == 0), "verifier and tokens must not be NULL");
        const lock l(v), s(v->session);
        v->impl.expect(tokens, n, pos);
    });
}

VT_EXPORT vt_status vt_verifier_decode(vt_verifier * v, const int32_t * tokens, size_t n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && tokens != nullptr, "verifier and tokens must not be NULL");
        const lock l(v), s(v->session);
        v->impl.decode(tokens, n);
    });
}

VT_EXPORT vt_status vt_verifier_audit(vt_verifier * v, const struct llama_sampler * chain, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && chain != nullptr && token != nullptr, "verifier, chain and token must not be NULL");
        const lock l(v), s(v->session), h(v->session->head);
        *token = v->impl.audit(chain);
    });
}

VT_EXPORT vt_status vt_verifier_watch(vt_verifier * v, const int32_t * tokens, size_t n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && (n == 0 || tokens != nullptr), "verifier and tokens must not be NULL");
        const lock l(v);
        v->session->store->impl.check_ids(tokens, n);
        v->impl.counts().watch(tokens, n);
    });
}

VT_EXPORT vt_status vt_verifier_missed(vt_verifier * v, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v);
        copy_counts(v->impl.counts().missed(), ids, counts, n_ids, n);
    });
}

VT_EXPORT vt_status vt_verifier_watched(vt_verifier * v, int32_t * ids, uint64_t * counts, size_t n_ids, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr, "verifier must not be NULL");
        const lock l(v);
        copy_counts(v->impl.counts().watched(), ids, counts, n_ids, n);
    });
}

VT_EXPORT vt_status vt_verifier_get_stats(vt_verifier * v, vt_verifier_stats * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(v != nullptr && out != nullptr, "verifier and out must not be NULL");
        const lock l(v);
        *out = v->impl.stats();
    });
}

}  // extern "C"
