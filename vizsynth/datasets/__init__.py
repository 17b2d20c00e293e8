"""Readers of labelled images in the layouts of published data sets."""
