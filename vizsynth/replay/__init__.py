"""What runs again, and only that, after a change of an image or a layer."""
