"""What a run is: configuration, checkpoints, folder and provenance."""
