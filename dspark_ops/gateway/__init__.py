"""The gateway on the head: rendered HAProxy and LiteLLM as rendered configuration, and the policy inside the latter."""
