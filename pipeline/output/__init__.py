"""An output folder while a job writes it: the lease, the commit log, parts, the manifest."""
