"""A generated world of people seen by visible and infrared cameras."""
