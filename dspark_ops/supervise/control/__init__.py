"""The supervisor as the control host sees it: install, remove, hold, resume, explain, and what verbs owe it."""
