"""A pair on disk: what both nodes answered, to be judged again without them."""
