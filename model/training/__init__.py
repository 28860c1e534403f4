"""The training step: losses, optimisers, schedules, self-critical rewards. Independent of the data source."""
