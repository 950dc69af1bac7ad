"""Who else holds the GPU or large memory: seen, named, evicted by consent, given back."""
