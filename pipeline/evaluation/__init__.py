"""Scores captions against references: reading predictions and references, matching, metrics, diversity."""
