"""`python -m dslc` is `dslc`."""

from dslc.cli import main

if __name__ == "__main__":
    main()
