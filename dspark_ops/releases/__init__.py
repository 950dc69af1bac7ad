"""Releases: what served, when, as what, and the way back to it."""
