"""What several passes share: algorithms over the graph, free of any one pass's options."""
