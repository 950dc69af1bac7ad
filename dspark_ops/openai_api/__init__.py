"""An OpenAI-compatible server as a client sees it: requests, streamed answers with their times, its own counters."""
