"""Pictures of what a network has learned, and of what its layers keep."""
