// The C API: sessions.

#include "api/api_objects.h"
#include "decode/probe.h"

using namespace vt;

extern "C" {

static bool on_node(ggml_tensor * t, bool ask, void * session) {
    return static_cast<vt_session *>(session)->impl.on_node(t, ask);
}

VT_EXPORT vt_status vt_session_new(const vt_session_params * params, vt_session ** out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(out != nullptr, "out must not be NULL");
        *out                      = nullptr;
        const vt_session_params p = read_params(params);
        require(p.head == nullptr || p.head->store == p.store, "the head belongs to another store");
        *out = new vt_session(p);
    });
}

VT_EXPORT void vt_session_free(vt_session * s) {
    delete s;
}

VT_EXPORT vt_status vt_session_prepare(vt_session * s, struct llama_context_params * params, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && params != nullptr, "session and params must not be NULL");
        const lock l(s);
        s->impl.prepare(*params);
        params->cb_eval           = on_node;
        params->cb_eval_user_data = s;
    });
}

VT_EXPORT vt_status vt_session_attach(vt_session * s, struct llama_context * ctx, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && ctx != nullptr, "session and ctx must not be NULL");
        const lock l(s);
        s->impl.attach(ctx);
    });
}

VT_EXPORT vt_status vt_session_decode(vt_session * s, const int32_t * tokens, size_t n, int32_t pos, const int8_t * outputs, char * err,
                                      size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && tokens != nullptr, "session and tokens must not be NULL");
        const lock l(s);
        s->impl.decode(tokens, n, pos, outputs);
    });
}

VT_EXPORT vt_status vt_session_decode_together(vt_session * s, const int32_t * tokens, size_t n, int32_t pos, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && tokens != nullptr, "session and tokens must not be NULL");
        const lock l(s);
        s->impl.decode_together(tokens, n, pos);
    });
}

VT_EXPORT vt_status vt_session_probe(vt_session * s, size_t max, size_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && n != nullptr, "session and n must not be NULL");
        const lock l(s);
        *n = probe_together(s->impl, max);
    });
}

VT_EXPORT vt_status vt_session_decode_batch(vt_session * s, const struct llama_batch * batch, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && batch != nullptr, "session and batch must not be NULL");
        const lock l(s);
        s->impl.decode_batch(*batch);
    });
}

VT_EXPORT vt_status vt_session_n_past(vt_session * s, int32_t * n, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && n != nullptr, "session and n must not be NULL");
        const lock l(s);
        *n = s->impl.n_past();
    });
}

VT_EXPORT vt_status vt_session_can_truncate(vt_session * s, bool * can, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && can != nullptr, "session and can must not be NULL");
        const lock l(s);
        *can = s->impl.can_truncate();
    });
}

VT_EXPORT vt_status vt_session_truncate(vt_session * s, int32_t pos, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "session must not be NULL");
        const lock l(s);
        s->impl.truncate(pos);
    });
}

VT_EXPORT vt_status vt_session_get_hidden(vt_session * s, float * hidden, size_t n_hidden, size_t * n_outputs, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "session must not be NULL");
        const lock l(s);
        copy_out(s->impl.hidden(), hidden, n_hidden, n_outputs);
        *n_outputs = s->impl.n_outputs();
    });
}

VT_EXPORT vt_status vt_session_get_groups(vt_session * s, uint64_t * sizes, size_t n_sizes, size_t * n_groups, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "session must not be NULL");
        const lock l(s);
        copy_out(s->impl.group_sizes(), sizes, n_sizes, n_groups);
    });
}

VT_EXPORT vt_status vt_session_logits(vt_session * s, size_t i, const float ** logits, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && logits != nullptr, "session and logits must not be NULL");
        const lock l(s), h(s->head);
        *logits = s->impl.logits(i);
    });
}

VT_EXPORT vt_status vt_session_sample(vt_session * s, struct llama_sampler * chain, size_t i, int32_t * token, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && chain != nullptr && token != nullptr, "session, chain and token must not be NULL");
        const lock l(s), h(s->head);
        *token = s->impl.sample(chain, i);
    });
}

VT_EXPORT vt_status vt_session_get_stats(vt_session * s, vt_session_stats * out, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && out != nullptr, "session and out must not be NULL");
        const lock l(s);
        *out = s->impl.stats();
    });
}

VT_EXPORT vt_status vt_session_keep_states(vt_session * s, int32_t kept, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr, "session must not be NULL");
        require(kept == VT_KEPT_NONE || kept == VT_KEPT_OUTPUTS || kept == VT_KEPT_ALL, "there are no such states to keep");
        const lock l(s);
        s->impl.keep(static_cast<vt_kept_states>(kept));
    });
}

VT_EXPORT vt_status vt_session_get_states(vt_session * s, int32_t pos, size_t n, float * hidden, size_t n_hidden, int32_t * sizes, int32_t * places,
                                          char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && sizes != nullptr && places != nullptr, "session, sizes and places must not be NULL");
        const lock                 l(s);
        const states_by_position & states = s->impl.states();
        require(pos >= 0 && n <= INT32_MAX, "no such positions");
        require(states.n_embd() > 0, "no context is attached");
        require(hidden == nullptr || n_hidden / states.n_embd() >= n, "hidden is too small");
        std::vector<states_by_position::place> where(n);
        states.get(static_cast<size_t>(pos), n, hidden, where.data());
        for (size_t i = 0; i < n; i++) {
            sizes[i]  = where[i].n;
            places[i] = where[i].index;
        }
    });
}

VT_EXPORT vt_status vt_session_set_states(vt_session * s, int32_t pos, size_t n, const float * hidden, size_t n_hidden, const int32_t * sizes,
                                          const int32_t * places, char * err, size_t n_err) {
    return guard(err, n_err, [&] {
        require(s != nullptr && hidden != nullptr && sizes != nullptr && places != nullptr, "session, hidden, sizes and places must not be NULL");
        const lock           l(s);
        states_by_position & states = s->impl.states();
        require(states.n_embd() > 0, "no context is attached");
        const size_t n_ctx = llama_n_ctx_seq(s->impl.context());
        require(pos >= 0 && n <= n_ctx && static_cast<size_t>(pos) <= n_ctx - n, "positions are beyond the context");
        require(n_hidden / states.n_embd() >= n, "hidden is too small");
        for (size_t i = 0; i < n; i++) {
            const bool is_one = sizes[i] > 0 && places[i] >= 0 && places[i] < sizes[i] && places[i] <= pos + static_cast<int32_t>(i);
            require(is_one || sizes[i] == 0, "a state's place is not among those that were multiplied at once");
            require(static_cast<size_t>(sizes[i]) <= n_ctx, "more states were multiplied at once than the context has tokens");
        }
        states.cut(static_cast<size_t>(pos));
        for (size_t i = 0; i < n; i++) {
            if (sizes[i] > 0) {
                states.put(static_cast<size_t>(pos) + i, hidden + i * states.n_embd(), {sizes[i], places[i]});
            }
        }
    });
}

}  // extern "C"
