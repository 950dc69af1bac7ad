"""What the pair says of itself: the exporter that runs on both nodes, and the pages made of it."""
