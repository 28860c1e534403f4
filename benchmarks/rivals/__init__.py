"""The same job by others' means: the same photos, weights and search, from the start of a process to a file."""
