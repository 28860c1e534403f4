"""Proof that an output is complete: counts the input by another way than the readers, and compares."""
