"""Text from a split model."""
