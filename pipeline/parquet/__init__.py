"""Reads images from columns of Parquet files."""
