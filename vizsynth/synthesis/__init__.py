"""Pictures made with a network by gradients: one paper a file."""
