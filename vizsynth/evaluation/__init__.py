"""Is a map faithful? One measure a file.

Each measure is a compiled program from images and maps to raw numbers, one an image. `bootstrap_mean`
gives the mean over images its interval.
"""
