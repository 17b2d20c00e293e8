"""Readers of labelled images: the layouts in which data sets are published."""
