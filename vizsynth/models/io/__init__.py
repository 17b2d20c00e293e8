"""Read, name and write weights."""
