"""Connecting to Ray, or starting it, and what the cluster has. Never imports torch."""
