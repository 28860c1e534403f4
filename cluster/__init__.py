"""Connects to a Ray cluster or starts Ray on this machine; metrics and deployment files. Never imports torch."""
