"""What the verbs of the program do, one function for each verb. Most take a typed options object.

The command line and `vireid.train`, `vireid.test` and `vireid.reproduce` call the same functions.
"""
