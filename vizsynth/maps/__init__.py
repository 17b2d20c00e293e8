"""Attribution maps: one paper a file.

Maps are signed (unless the paper has a ReLU) and unscaled, at their own resolution.
"""
