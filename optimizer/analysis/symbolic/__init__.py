"""Shape arithmetic with symbols for what is dynamic."""
