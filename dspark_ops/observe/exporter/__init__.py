"""The exporter. It runs on a node: Python's standard library and the bundled prometheus_client, nothing else."""
