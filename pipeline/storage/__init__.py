"""Accesses local files, S3, other stores and the web; prefetches and writes atomically."""
