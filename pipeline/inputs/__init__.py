"""Lists the shards of the inputs that a user names."""
