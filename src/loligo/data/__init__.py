"""Manifests, splits, the image cache, augmentation and made data."""
