"""The router's policy. It runs on the head inside LiteLLM's process: standard library, and LiteLLM's own hooks.

`gateway.program` packs it as `dspark_gateway`, so its modules import one another relatively.
"""
