"""Training data: annotation files, and the prepared shards made of them."""
