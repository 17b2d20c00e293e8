"""Pictures in the style of another."""
