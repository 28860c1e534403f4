"""The verbs. Each module is a command: `shardtalk caption` is `python -m jobs.caption`."""

__version__ = "0.1.0"
