"""Weights and what is known of them: read, named, written."""
