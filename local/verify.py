#!/usr/bin/env python3
"""Do two recordings have the same speaker? See speakerkd/verify/__main__.py, whose help this prints."""

from speakerkd.conf import run
from speakerkd.verify.__main__ import main

if __name__ == "__main__":
    run(main)
