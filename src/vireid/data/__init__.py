"""What an image, a batch and a trial are: the words every other room speaks."""
