"""`python -m icd_lib.packaging`; the code is in `icd_lib.release.package`."""

import sys

from icd_lib.release.package import main

if __name__ == "__main__":
    sys.exit(main())
