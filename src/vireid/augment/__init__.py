"""Augmentations: functions from images to images. All random numbers come from a generator that the caller passes."""
