"""Captioners as a job sees them: the protocol, Shardtalk's own networks behind it, and how others are found by name."""
