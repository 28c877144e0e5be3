"""`python -m routerr1.cli`, as `accelerate launch` needs it."""

from routerr1.cli import main

main()
