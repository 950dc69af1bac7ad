"""The first cause of an incident: both ranks' logs, journals and kernels on one timeline, echoes put aside."""
