"""The prompts of a run: templates with random identifiers, by class of content."""
