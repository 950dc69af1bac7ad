"""The test server is held against what a real vLLM answered, and against known answers of its own clockwork."""
