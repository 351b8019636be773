"""Names that the files of a split model share."""

from __future__ import annotations

FORMAT_VERSION = 1
STUB_ROWS = 32
EMBEDDING, HEAD, BIAS = "token_embd.weight", "output.weight", "output.bias"
PER_LAYER = "per_layer_token_embd.weight"

# keys of ours whose values are known only after the data has been read
SOURCE_SHA, PAIR_ID = "vocabtailor.source.sha256", "vocabtailor.pair_id"
TENSOR_SHA = {
    EMBEDDING: "vocabtailor.token_embd.sha256",
    HEAD: "vocabtailor.output.sha256",
    BIAS: "vocabtailor.output_bias.sha256",
    PER_LAYER: "vocabtailor.per_layer_token_embd.sha256",
}
