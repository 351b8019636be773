"""Other people's tools, one file each; none is imported by anything else."""
