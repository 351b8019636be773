"""Tasks with their metrics, for each mode and token set."""
