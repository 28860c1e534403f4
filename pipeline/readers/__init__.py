"""Readers: spans of shards of any form → Arrow tables of encoded images."""
