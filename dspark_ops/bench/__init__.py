"""What the server does by the clock, per class of content: corpus, plan, run, records, summary."""
