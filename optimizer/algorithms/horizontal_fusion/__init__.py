"""One kernel on several inputs runs once, on a batch of them."""
