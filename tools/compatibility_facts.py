"""What TailoredLlama makes of each parameter and public member of ``llama_cpp.Llama``.

The one place to change when a feature comes: a line says the state of one parameter or member, and
`REFUSED` lists what of them is refused.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """The state in the three modes: "same" or "differs"; and how.

    Attributes:
        exact: In mode exact.
        full: In mode full.
        tailored: In mode tailored.
        note: How it differs, or what else is to say.
        test: What tests it, ``file::function``.
    """

    exact: str
    full: str
    tailored: str
    note: str = ""
    test: str = ""


_PARAMETERS = "test_compatibility.py::test_parameters"
_MEMBERS = "test_compatibility.py::test_members"
_SET = "only tokens of the active set are produced"


def same(note: str = "", test: str = "") -> Fact:
    """As stock in every mode."""
    return Fact("same", "same", "same", note, test)


def differs(note: str, test: str = "") -> Fact:
    """Another thing than with stock, in every mode."""
    return Fact("differs", "differs", "differs", note, test)


def text(note: str = _SET, test: str = "") -> Fact:
    """As stock where the whole vocabulary decides."""
    return Fact("same", "same", "differs", note, test)


@dataclass(frozen=True)
class Refusal:
    """What ends in a clear error, though stock may do it; why, and what tests it."""

    what: str
    why: str
    test: str


PARAMETERS: dict[str, Fact] = {
    "model_path": differs(
        "a core, whose store lies beside it or is `vocab_path`; an unsplit model is split into the "
        "cache on its first use"
    ),
    "n_gpu_layers": same("there is no GPU here: stock ignores it as well"),
    "split_mode": same(),
    "main_gpu": same(),
    "tensor_split": same(),
    "vocab_only": same(
        "of a core, an unsplit model or a vocabulary", "test_surface.py::test_only_a_vocabulary"
    ),
    "use_mmap": same(),
    "use_mlock": same(),
    "kv_overrides": same("those of the logits' scale and soft cap reach the head"),
    "seed": same(),
    "n_ctx": same(),
    "n_batch": same(),
    "n_ubatch": same(),
    "n_threads": same(),
    "n_threads_batch": same(),
    "rope_scaling_type": same(),
    "pooling_type": same("of use with embeddings only"),
    "attention_type": same(),
    "rope_freq_base": same(),
    "rope_freq_scale": same(),
    "yarn_ext_factor": same(),
    "yarn_attn_factor": same(),
    "yarn_beta_fast": same(),
    "yarn_beta_slow": same(),
    "yarn_orig_ctx": same(),
    "logits_all": text("rows of `scores` are those of the active set, elsewhere -inf"),
    "embedding": same(),
    "offload_kqv": same(),
    "flash_attn": same(),
    "op_offload": same(),
    "swa_full": same(),
    "no_perf": same(),
    "last_n_tokens_size": same(),
    "lora_base": same("stock keeps it and does not use it"),
    "lora_scale": same(test="test_lora.py::test_adapters_of_the_core"),
    "lora_path": same(test="test_lora.py::test_adapters_of_the_core"),
    "numa": same(),
    "chat_format": same(),
    "chat_handler": same(),
    "draft_model": differs(
        "exact mode takes its drafts beside its own, other modes do not; the text is stock's",
        "test_draft_models.py::test_a_draft_model",
    ),
    "tokenizer": same(test="-"),
    "type_k": same(),
    "type_v": same(),
    "spm_infill": same(),
    "verbose": same(),
}

MEMBERS: dict[str, Fact] = {
    "__call__": text(),
    "close": same("every later call is an error", "test_llama.py::test_closing"),
    "create_chat_completion": text(),
    "create_chat_completion_openai_v1": text(test="-"),
    "create_completion": text(
        "only tokens of the active set are produced; `logprobs` are over it, or with "
        '`logprobs_over="vocabulary"` over all tokens'
    ),
    "create_embedding": same(test="test_embeddings.py::test_create_embedding"),
    "ctx": differs(
        "the core's context, whose logits llama_cpp's functions give as the unsplit model's; C "
        "programs see the core's",
        "test_surface.py::test_raw_logits_are_the_whole_vocabularys",
    ),
    "detokenize": same(),
    "embed": same(test="test_embeddings.py::test_embeddings_are_stocks"),
    "eval": same(),
    "eval_logits": text("-inf outside the active set", "test_scores.py::test_arrays"),
    "eval_tokens": same(),
    "from_pretrained": differs(
        "an unsplit model is split on arrival; the store comes with a core",
        "test_pretrained.py::test_an_unsplit_model_is_split_on_arrival",
    ),
    "generate": text(),
    "load_state": same("of states of this class", "test_surface.py::test_states"),
    "logits_to_logprobs": same(),
    "longest_token_prefix": same(),
    "model": differs(
        "the core's, of which llama_cpp's functions tell what is true of the unsplit model",
        "test_surface.py::test_facts_of_the_model",
    ),
    "n_ctx": same(),
    "n_embd": same(),
    "n_vocab": same(),
    "pooling_type": same(),
    "reset": same(),
    "sample": text("only tokens of the active set; of the last position only"),
    "save_state": differs(
        "hidden states travel in the place of logits", "test_surface.py::test_states"
    ),
    "set_cache": same(test="test_surface.py::test_caches"),
    "set_seed": text(),
    "token_bos": same(),
    "token_eos": same(),
    "token_nl": same(),
    "tokenize": same(),
    "tokenizer": same(),
    "__getstate__": differs(
        "has this package's own arguments, too", "test_surface.py::test_pickle_and_copy"
    ),
    "__setstate__": same(test="test_surface.py::test_pickle_and_copy"),
}

REFUSED = (
    Refusal(
        "`lora_path` of an adapter of the token embedding or the LM head",
        "these lie in the store: merge the adapter into the unsplit model, then split that",
        "test_lora.py::test_adapters_of_the_vocabulary_are_refused_by_name",
    ),
    Refusal(
        "`type_k` or `type_v` whose blocks do not fit the heads",
        "llama.cpp ends the process there",
        "test_arguments.py::test_an_arguments_fault_names_it",
    ),
    Refusal(
        "`sample(idx=...)` of another position than the last",
        "a chain and its drafts know one place, the end of the text; drafts of a "
        "`draft_model` are verified natively",
        "test_compatibility.py::test_sampling_elsewhere",
    ),
    Refusal(
        "`llama_sampler_sample` of llama.cpp with the pointer `ctx`",
        "in llama.cpp it would choose from the core's stub rows; `sample` does what it does",
        "test_compatibility.py::test_sampling_elsewhere",
    ),
    Refusal(
        "generating with `vocab_only=True`",
        "there are no layers; stock ends in an `AssertionError`",
        "test_surface.py::test_only_a_vocabulary",
    ),
    Refusal(
        "a state of a model of another kind",
        "it does not fit",
        "test_surface.py::test_a_state_of_another_model_is_refused",
    ),
    Refusal(
        "encoders, shards, models that use token ids for more than looking rows up",
        "they cannot be split; the error names them",
        "test_split_files.py::test_refused_models",
    ),
)


def where_tested(name: str, facts: dict[str, Fact]) -> str:
    """Return the test of a parameter or a member, "-" where there is none."""
    default = _PARAMETERS if facts is PARAMETERS else _MEMBERS
    return facts[name].test or f"{default}[{name}]"
