"""What is known of a model without running it: shapes, symbolic dimensions, MACs, facts."""
