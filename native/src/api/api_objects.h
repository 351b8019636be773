// The opaque objects that are made of one another.
#pragma once

#include "api/api.h"
#include "decode/session.h"
#include "decode/verifier.h"
#include "head/head.h"
#include "head/whole_head.h"

struct vt_head {
    vt_store *        store;
    vt::head          impl;
    std::atomic<bool> busy{false};

    explicit vt_head(vt_store * s) : store(s), impl(s->impl) {}
    explicit vt_head(vt_head & other) : store(other.store), impl(other.impl, vt::share_rows()) {}
};

struct vt_session {
    vt_store *        store;
    vt_head *         head;
    vt::session       impl;
    std::atomic<bool> busy{false};

    explicit vt_session(const vt_session_params & p)
        : store(p.store), head(p.head), impl(p.store ? &p.store->impl : nullptr, p.head ? &p.head->impl : nullptr, p.seq_id) {}
};

struct vt_whole_head {
    vt_store *     store;
    vt::whole_head impl;

    vt_whole_head(vt_store * s, vt_placement placement, int32_t n_threads) : store(s), impl(s->impl, placement, n_threads) {}
};

struct vt_verifier {
    vt_session *      session;
    vt::verifier      impl;
    std::atomic<bool> busy{false};

    explicit vt_verifier(const vt_verifier_params & p)
        : session(p.session),
          impl(p.session->impl, p.whole->impl, *p.vocab, {p.max_block == 0 ? vt::SCAN_MAX_STATES : p.max_block, p.max_pass, p.no_drafts}) {}
};
