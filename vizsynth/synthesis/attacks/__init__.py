"""Images that change what a network says."""
