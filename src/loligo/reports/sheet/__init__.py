"""The sheet of one image."""
