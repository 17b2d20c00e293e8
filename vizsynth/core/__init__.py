"""What all else stands on: whole files, a run's own folder, signals. It imports nothing of the package."""
