"""What goes into a bug report: collected, stripped of secrets, packed."""
