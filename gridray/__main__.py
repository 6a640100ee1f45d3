"""Run the command line as `python -m gridray`."""

from __future__ import annotations

from gridray.cli import main

if __name__ == "__main__":
    main()
