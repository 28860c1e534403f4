"""Columns and shards: planning, reading, decoding, captioning, committing; the flow and its two runners."""
