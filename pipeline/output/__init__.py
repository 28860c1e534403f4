"""Writes an output folder: the lease, the commit log, the parts, the manifest."""
