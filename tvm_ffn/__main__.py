"""``python -m tvm_ffn`` is ``tvm-ffn``."""

import sys

from tvm_ffn.cli import main

sys.exit(main())
