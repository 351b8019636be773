"""Profile a task's corpus into a static token set (VocabTailor, arXiv 2508.15229, section 4)."""
