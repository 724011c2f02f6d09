"""``python -m mecoq_index`` is the command line."""

from .cli import main

main(prog_name="mecoq-index")
