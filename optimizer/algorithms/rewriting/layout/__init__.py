"""Moving Transposes to where the fewest are needed, by a minimum cut."""
