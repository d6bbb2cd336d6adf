"""`python -m momentkit`, which is also what torchrun starts."""

from momentkit.cli.main import main

main()
