"""Token sets: ids with a provenance, how they grow and combine."""
