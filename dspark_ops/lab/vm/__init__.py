"""The VM lane of the rehearsal pair: own kernels, real soft-RoCE, real reboots."""
