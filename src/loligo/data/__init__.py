"""Manifests, splits, the image cache, augmentation and synthetic data."""
