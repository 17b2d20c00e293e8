"""Textures from an example."""
