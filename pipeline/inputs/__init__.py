"""What a user names as input → the list of shards."""
