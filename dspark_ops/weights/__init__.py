"""The weights: one download into the hub cache layout, every byte checked, mirrored to the other node."""
