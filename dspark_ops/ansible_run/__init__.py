"""Running the playbooks: argument list and environment, inventory, event stream, and one lock per site."""
