"""Tests and measures Shardtalk on one GPU within a budget of minutes: `python -m benchmarks.gpu --output DIR`."""
