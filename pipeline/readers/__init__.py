"""Readers: spans of shards of any format → Arrow tables of encoded images."""
