"""The native library, bound with cffi."""
