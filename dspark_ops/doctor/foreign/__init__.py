"""A pair that another recipe set up: what runs is found, not assumed, and judged by the same catalogue."""
