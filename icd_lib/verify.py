"""`python -m icd_lib.verify`; the code is in `icd_lib.release.verify`."""

import sys

from icd_lib.release.verify import main

if __name__ == "__main__":
    sys.exit(main())
