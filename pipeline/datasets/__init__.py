"""Training data: annotations as people have them, prepared shards and what is in them."""
