"""GGUF files: headers, writing, pairs of core and store."""
