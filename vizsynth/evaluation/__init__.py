"""Measures of a map's faithfulness, one per file.

Each measure is a compiled program from images and maps to raw numbers, one per image. `bootstrap_mean`
returns their mean and its interval.
"""
