"""The product on one GPU, tested and measured within a budget of minutes: `python -m benchmarks.gpu --output DIR`."""
