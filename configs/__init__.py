"""Typed configuration: one frozen dataclass per job, filled from YAML files and dotted overrides."""
