"""Attribution maps: one paper a file.

Every map is signed (but for the ReLU that its paper has) and unscaled, at its own resolution.
"""
