"""What the verbs of the program do, as functions of one typed options object each. Python users call the same ones."""
