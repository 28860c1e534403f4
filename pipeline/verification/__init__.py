"""Proves that an output is complete: counts the input independently of the readers, and compares."""
