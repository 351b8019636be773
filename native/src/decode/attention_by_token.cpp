#include "decode/attention_by_token.h"

#include "base/error.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <cstring>

namespace vt {

namespace {

constexpr int64_t MAX_TOKENS  = 64;   // of a batch
constexpr int64_t FLASH_CELLS = 512;  // below that ggml's flash attention goes through the memory in one piece for any few tokens
constexpr size_t  PER_TOKEN   = 3;    // tensors: queries, mask, result

// llama.cpp's name of the memory that a tensor is a view of
bool is_memory(const ggml_tensor * t) {
    while (t->view_src != nullptr) {
        t = t->view_src;
    }
    return strncmp(t->name, "cache_", 6) == 0;
}

ggml_context * new_context(std::vector<uint8_t> & memory, size_t n_tokens) {
    const size_t size = ggml_tensor_overhead() * PER_TOKEN * n_tokens + ggml_graph_overhead_custom(n_tokens * (PER_TOKEN + 1), false);
    memory.resize(std::max(memory.size(), size));
    return ggml_init({memory.size(), memory.data(), true});
}

// what `like` is, with the data and the shape of one token; its dimension 1 counts tokens
ggml_tensor * one_of(ggml_context * ctx, const ggml_tensor * like, int64_t i) {
    ggml_tensor * t = ggml_new_tensor_4d(ctx, like->type, like->ne[0], 1, like->ne[2], like->ne[3]);
    std::copy(like->nb, like->nb + GGML_MAX_DIMS, t->nb);
    t->data   = static_cast<char *>(like->data) + static_cast<size_t>(i) * like->nb[1];
    t->buffer = like->buffer;
    return t;
}

ggml_tensor * dense(ggml_context * ctx, int64_t n, int64_t n_heads, float * data) {
    ggml_tensor * t = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, n, 1, n_heads, 1);
    t->data         = data;
    return t;
}

// makes `node` the operation of `like`, whose operands may be others
void operate(ggml_tensor * node, const ggml_tensor * like) {
    node->op    = like->op;
    node->flags = GGML_TENSOR_FLAG_COMPUTE;
    memcpy(node->op_params, like->op_params, sizeof(node->op_params));
    std::copy(like->src, like->src + GGML_MAX_SRC, node->src);
}

void require_host(const ggml_tensor * t) {
    const bool is_here = t->data != nullptr && (t->buffer == nullptr || ggml_backend_buffer_is_host(t->buffer));
    if (!is_here || t->ne[3] != 1) {
        throw error(VT_ERROR_COMPUTE, format("attention %s lies in an unexpected place or layout", t->name));
    }
}

}  // namespace

bool attention_by_token::wants(const ggml_tensor * t) {
    return (t->op == GGML_OP_FLASH_ATTN_EXT && t->src[1]->ne[1] >= FLASH_CELLS) || (t->op == GGML_OP_MUL_MAT && is_memory(t->src[0]));
}

void attention_by_token::redo(ggml_tensor * t, int32_t n_threads) {
    for (const ggml_tensor * src :
         {static_cast<const ggml_tensor *>(t), static_cast<const ggml_tensor *>(t->src[0]), static_cast<const ggml_tensor *>(t->src[1])}) {
        require_host(src);
    }
    if (t->type != GGML_TYPE_F32) {
        throw error(VT_ERROR_COMPUTE, format("attention %s has an unexpected type", t->name));
    }
    t->op == GGML_OP_FLASH_ATTN_EXT ? redo_flash(t, n_threads) : redo_product(t, n_threads);
}

void attention_by_token::compute(ggml_context * ctx, const std::vector<ggml_tensor *> & nodes, int32_t n_threads) {
    ggml_cgraph * gf = ggml_new_graph_custom(ctx, nodes.size() * (PER_TOKEN + 1), false);
    for (ggml_tensor * node : nodes) {
        ggml_graph_add_node(gf, node);
    }
    ggml_cplan plan = ggml_graph_plan(gf, n_threads, nullptr);
    m_work.resize(std::max(m_work.size(), plan.work_size));
    plan.work_data = m_work.data();
    if (ggml_graph_compute(gf, &plan) != GGML_STATUS_SUCCESS) {
        throw error(VT_ERROR_COMPUTE, "ggml cannot compute attention");
    }
}

// q: (head size, tokens, heads); mask: (cells, tokens); result: (head size, heads, tokens)
void attention_by_token::redo_flash(ggml_tensor * t, int32_t n_threads) {
    const int64_t n = t->src[0]->ne[1];
    if (n > MAX_TOKENS || t->ne[2] != n) {
        throw error(VT_ERROR_COMPUTE, "flash attention has an unexpected layout");
    }
    const ggml_context_ptr     ctx(new_context(m_tensors, static_cast<size_t>(n)));
    std::vector<ggml_tensor *> nodes;
    for (int64_t i = 0; i < n; i++) {
        ggml_tensor * node = ggml_new_tensor_4d(ctx.get(), t->type, t->ne[0], t->ne[1], 1, 1);
        node->data         = static_cast<char *>(t->data) + static_cast<size_t>(i) * t->nb[2];
        operate(node, t);
        node->src[0] = one_of(ctx.get(), t->src[0], i);
        if (t->src[3] != nullptr) {
            node->src[3] = one_of(ctx.get(), t->src[3], i);
        }
        nodes.push_back(node);
    }
    compute(ctx.get(), nodes, n_threads);
}

// operand: (k, tokens, heads); result: (m, tokens, heads)
void attention_by_token::redo_product(ggml_tensor * t, int32_t n_threads) {
    const ggml_tensor * x       = t->src[1];
    const int64_t       n       = x->ne[1];
    const int64_t       n_heads = x->ne[2];
    if (n > MAX_TOKENS || x->type != GGML_TYPE_F32 || t->ne[1] != n || t->ne[2] != n_heads || x->nb[0] != sizeof(float) ||
        t->nb[0] != sizeof(float)) {
        throw error(VT_ERROR_COMPUTE, "a product of attention has an unexpected layout");
    }
    const size_t k = static_cast<size_t>(x->ne[0]), m = static_cast<size_t>(t->ne[0]), heads = static_cast<size_t>(n_heads);
    m_values.resize(std::max(m_values.size(), static_cast<size_t>(n) * heads * (k + m)));

    // a token's part of a tensor, head by head
    const auto part = [](const ggml_tensor * of, int64_t i, size_t head) {
        return static_cast<char *>(of->data) + static_cast<size_t>(i) * of->nb[1] + head * of->nb[2];
    };
    const ggml_context_ptr     ctx(new_context(m_tensors, static_cast<size_t>(n)));
    std::vector<ggml_tensor *> nodes;
    float *                    values = m_values.data();
    for (int64_t i = 0; i < n; i++) {
        ggml_tensor * operand = dense(ctx.get(), x->ne[0], n_heads, values);
        ggml_tensor * node    = dense(ctx.get(), t->ne[0], n_heads, values + heads * k);
        for (size_t head = 0; head < heads; head++) {
            memcpy(values + head * k, part(x, i, head), k * sizeof(float));
        }
        values += heads * (k + m);
        operate(node, t);
        node->src[1] = operand;
        nodes.push_back(node);
    }
    compute(ctx.get(), nodes, n_threads);
    for (int64_t i = 0; i < n; i++) {
        const float * result = static_cast<const float *>(nodes[static_cast<size_t>(i)]->data);
        for (size_t head = 0; head < heads; head++) {
            memcpy(part(t, i, head), result + head * m, m * sizeof(float));
        }
    }
}

}  // namespace vt
