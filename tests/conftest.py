"""What every test shares. Small worlds and trained runs are made once a session."""

from __future__ import annotations

import os

# Before torch is imported: two test processes on two cores must not spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
