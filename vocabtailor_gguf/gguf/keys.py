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

# what a source has that neither core nor store may have; a merge puts it back
KEY_ORDER, TENSOR_ORDER = "vocabtailor.source.key_order", "vocabtailor.source.tensor_order"
SOURCE_VERSION = "vocabtailor.source.version"
SOURCE_ALIGNMENT = "vocabtailor.source.alignment"
ODD_KEYS = "vocabtailor.source.odd_keys"  # whole records
ODD_TENSORS = "vocabtailor.source.odd_tensors"  # records without type and offset
SOURCE_PADDING = "vocabtailor.source.padding"  # before each tensor's data, and after the last
SOURCE_SIZE = "vocabtailor.source.size"
