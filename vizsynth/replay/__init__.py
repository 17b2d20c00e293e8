"""Run again only the part of a network that a change of an image or a layer reaches."""
