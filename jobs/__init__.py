"""The verbs. Each module is a command: `shardtalk caption` is `python -m jobs.caption`."""
