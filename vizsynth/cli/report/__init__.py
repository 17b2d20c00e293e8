"""The page of a report, and what is made for it."""
