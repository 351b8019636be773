"""Whether this machine can run split models, and how well."""
