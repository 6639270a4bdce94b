"""`python -m icd_lib.validate`; the code is in `icd_lib.release.judge`."""

import sys

from icd_lib.release.judge import main

if __name__ == "__main__":
    sys.exit(main())
