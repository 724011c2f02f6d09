"""``python -m mecoq_index`` is the command line."""

import os
import sys

# Python puts the current folder first, which may be somebody else's index or photos: a package that
# is not installed would be imported from there.
if not getattr(sys.flags, "safe_path", False) and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]

from .cli import main

main(prog_name="mecoq-index")
