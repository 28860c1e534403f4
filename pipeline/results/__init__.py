"""Reads outputs: exports, progress, the rows of a gallery and their images."""
