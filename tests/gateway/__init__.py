"""The gateway's contract, against the real LiteLLM and the real HAProxy with a stand-in engine and a stand-in cloud.

`stand_in` has the backends and the supervisor's status port, `bench` starts the two programs from what the product
renders, `asking` is a client that reads what comes back to the last byte.
"""
