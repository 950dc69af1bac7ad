"""`doctor --fix`: from findings to the few changes that cure them, by consent, and what came of it."""
