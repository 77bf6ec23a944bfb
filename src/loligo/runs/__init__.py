"""The run folder: what a training leaves on disk, written and read in one place."""
