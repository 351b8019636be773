"""Models into a core and a vocabulary store, and back."""
