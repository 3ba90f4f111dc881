"""The jobs: one file each, and the only place where the platform and the models meet."""
