"""The program `vireid`, one thin file per verb group."""
