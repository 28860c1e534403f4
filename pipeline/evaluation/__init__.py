"""Scores of captions against references: metrics, diversity, and what they are computed from."""
