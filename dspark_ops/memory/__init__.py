"""Unified memory: what a release needs, the gate before a start, the floor until it is ready."""
