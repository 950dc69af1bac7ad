"""What of the pair can be reached from beyond the loopback and the fabric: the policy, its packet filter, its audit."""
