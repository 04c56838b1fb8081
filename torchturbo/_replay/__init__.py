"""A function again and again from the same state: run under settings, watched or timed, and everything put back."""
