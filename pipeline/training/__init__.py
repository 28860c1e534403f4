"""Trains captioners: data loading, objectives, the epoch loop, validation; in one process or on Ray Train."""
