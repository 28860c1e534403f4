"""Training runs: data loading, objectives, the epoch loop, validation; alone or on Ray Train."""
