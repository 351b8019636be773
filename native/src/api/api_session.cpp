// The C API: sessions.

#include "api/api_objects.h"

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

}  // extern "C"
