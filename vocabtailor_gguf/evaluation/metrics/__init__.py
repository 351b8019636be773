"""Metrics of the five task families."""
