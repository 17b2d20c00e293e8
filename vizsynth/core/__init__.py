"""The ground of the package: atomic files, a run's own folder, signals. It imports nothing of the package."""
